# SPDX-License-Identifier: MIT
"""Constructs, checks, canonicalizes and hashes the messages of the tvix build protocol
(tvix.build.v1 and snix.build.v1).

    >>> import tvix_build
    >>> request = tvix_build.build_request(command_args=["/bin/true"], outputs=["hi"])
    >>> tvix_build.check(request).canonical
    True

The messages are protobuf messages of `tvix.build.protos.build_pb2` and
`tvix.castore.protos.castore_pb2`, or of the same modules in `snix`. docs/canonical-form.md defines
valid and canonical messages and digests. All functions are thread-safe, do not change their
arguments, and return new objects.
"""

from typing import TYPE_CHECKING

from tvix_build._version import __version__

if TYPE_CHECKING:
    from tvix_build._core.batch import BatchReport, CanonicalBatch, canonicalize_batch, check_batch
    from tvix_build._core.blake3 import blake3_many
    from tvix_build._core.check import canonicalize, check, digest, validate
    from tvix_build._core.construct import build_request, directory_node, file_node, symlink_node
    from tvix_build._core.convert import convert
    from tvix_build._core.digests import Digests
    from tvix_build._core.report import (
        Error,
        Kind,
        NotRepresentableError,
        Reason,
        Report,
        Schema,
        ValidationError,
        Violation,
        ViolationCode,
    )

__all__ = [
    "BatchReport",
    "CanonicalBatch",
    "Digests",
    "Error",
    "Kind",
    "NotRepresentableError",
    "Reason",
    "Report",
    "Schema",
    "ValidationError",
    "Violation",
    "ViolationCode",
    "__version__",
    "blake3_many",
    "build_request",
    "canonicalize",
    "canonicalize_batch",
    "check",
    "check_batch",
    "convert",
    "digest",
    "directory_node",
    "file_node",
    "symlink_node",
    "validate",
]

if not TYPE_CHECKING:  # A type checker reports unknown names.

    def __getattr__(name: str) -> object:
        """Load all public names on the first use of one: the command line starts without
        protobuf and the extension, although Python imports this package first."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        for module in ("batch", "blake3", "check", "construct", "convert", "digests", "report"):
            found = vars(import_module(f"{__name__}._core.{module}"))
            globals().update({one: found[one] for one in __all__ if one in found})
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
