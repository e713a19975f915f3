# SPDX-License-Identifier: MIT
"""Sets the public names of classes and functions."""

from __future__ import annotations

import inspect
from typing import Any


def publish(module: str, *values: Any) -> None:
    """Set `__module__` of classes and functions to the package that exports them, so that
    tracebacks, help() and pickles show the public names.

    Args:
        module: the name of the package.
        values: the classes and functions; other values are ignored.
    """
    for value in values:
        if inspect.isclass(value):
            # Evaluate annotations first, because their names are looked up in the old module.
            value.__annotations__ = {
                name: annotation
                for name, annotation in inspect.get_annotations(value).items()
                if not name.startswith("_")
            }
            value.__annotations__ = inspect.get_annotations(value, eval_str=True)
            value.__module__ = module
        elif inspect.isfunction(value):
            value.__module__ = module


def set_public_module(namespace: dict[str, Any]) -> None:
    """Publish all names in `__all__` of a package, whose globals are `namespace`."""
    publish(namespace["__name__"], *(namespace[name] for name in namespace["__all__"]))
