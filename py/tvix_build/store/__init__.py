# SPDX-License-Identifier: MIT
"""A store of build requests of tvix.build.v1 and of builds of all schemas, by the digest of the
request.

    >>> from tvix_build import build_request
    >>> from tvix_build.store import RequestStore
    >>> with RequestStore("requests.sqlite") as store:
    ...     digest = store.put(build_request(command_args=["/bin/true"]))
    ...     store.get(digest) == store.get(digest.hex()[:8])
    True

A store is an SQLite database in one file. While it is open, SQLite uses two more files beside it.
Threads may share a RequestStore. Each process must open its own, also after a fork.
"""

from tvix_build._core.names import set_public_module
from tvix_build.store.database import StoreError
from tvix_build.store.requests import (
    AmbiguousDigestError,
    Damage,
    RequestStore,
    UnknownDigestError,
)

__all__ = ["AmbiguousDigestError", "Damage", "RequestStore", "StoreError", "UnknownDigestError"]

set_public_module(globals())
