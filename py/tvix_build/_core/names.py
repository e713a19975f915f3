# SPDX-License-Identifier: MIT
"""The names under which users know classes and functions."""

from __future__ import annotations

import inspect
from typing import Any


def set_public_module(namespace: dict[str, Any]) -> None:
    """Make a package the module of all classes and functions that its `__all__` names, wherever
    they are defined: tracebacks, help() and pickles then show the public name.

    Args:
        namespace: the globals of the package.
    """
    for name in namespace["__all__"]:
        value = namespace[name]
        if inspect.isclass(value):
            # The names in a class's annotations are looked up in its module: evaluate them before.
            value.__annotations__ = {
                name: annotation
                for name, annotation in inspect.get_annotations(value).items()
                if not name.startswith("_")
            }
            value.__annotations__ = inspect.get_annotations(value, eval_str=True)
            value.__module__ = namespace["__name__"]
        elif inspect.isfunction(value):
            value.__module__ = namespace["__name__"]
