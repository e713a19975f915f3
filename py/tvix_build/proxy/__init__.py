# SPDX-License-Identifier: MIT
"""The door of `tvix-build serve`: checks every request before a builder sees it.

A builder here is anything that answers a `Call`. `upstream` has the one that forwards; the others
wrap a builder: `limits`, `sharing`, `recording`, `answers`, `traces`. `door` takes calls from gRPC,
`statuses` says why one is refused, `logs` and `metrics` hear how each ended, and `server` puts all
together.
"""
