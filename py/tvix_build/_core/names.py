# SPDX-License-Identifier: MIT
"""Sets the public names of classes and functions."""

from __future__ import annotations

import inspect
from typing import Any


def set_public_module(namespace: dict[str, Any]) -> None:
    """Set `__module__` of all classes and functions in `__all__` to the package, so that
    tracebacks, help() and pickles show the public names.

    Args:
        namespace: the globals of the package.
    """
    for name in namespace["__all__"]:
        value = namespace[name]
        if inspect.isclass(value):
            # Evaluate annotations first, because their names are looked up in the old module.
            value.__annotations__ = {
                name: annotation
                for name, annotation in inspect.get_annotations(value).items()
                if not name.startswith("_")
            }
            value.__annotations__ = inspect.get_annotations(value, eval_str=True)
            value.__module__ = namespace["__name__"]
        elif inspect.isfunction(value):
            value.__module__ = namespace["__name__"]
