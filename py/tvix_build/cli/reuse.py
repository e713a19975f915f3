# SPDX-License-Identifier: MIT
"""The options `--builds`, `--rebuild` and `--check` of the command `build`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tvix_build.builders import Builder
    from tvix_build.castore import CastoreStore


class Reuse(NamedTuple):
    """How builds are reused.

    Attributes:
        builds: the file of the store of builds, or None.
        rebuild: whether to build what is stored.
        check: whether to build once more and compare the outputs.
    """

    builds: str | None
    rebuild: bool
    check: bool

    @contextmanager
    def apply(self, builder: Builder, castore: CastoreStore) -> Iterator[Builder]:
        """Yield a builder that reuses the builds of another one."""
        if self.builds is None and not self.check:
            yield builder
            return
        from tvix_build.builders.caching import CachingBuilder, CheckingBuilder

        def checked(first: Builder) -> Builder:
            if not self.check:
                return first
            return CheckingBuilder(first, again=builder, castore=castore)

        if self.builds is None:
            yield checked(builder)
            return
        from tvix_build.store import RequestStore

        with RequestStore(self.builds) as store:
            yield checked(
                CachingBuilder(builder, store=store, castore=castore, rebuild=self.rebuild)
            )
