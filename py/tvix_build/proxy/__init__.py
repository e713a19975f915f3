# SPDX-License-Identifier: MIT
"""The validating proxy of `tvix-build serve`, and the client of a builder.

`client` is public. The proxy validates each request before a builder receives it, and each response
before the caller receives it:

- `server` assembles the proxy and runs it, `service` handles the calls, `open_calls` counts them.
  `receiving` reads requests within limits of memory and time, and `shares` distributes memory and
  builds among callers.
- `listening` binds addresses, and `reflecting` adds server reflection.
- `callers` identifies callers, with `tokens`, and counts their calls, with `rates`. `metadata`
  chooses the metadata that the builder and the caller receive.
- `castore` handles the calls of the castore services.
- `builder_protocol` defines what a builder is. `upstream` forwards calls to a builder,
  and `balancing` distributes them among several; `limits`,
  `deduplication`, `recording`, `response_checks` and `tracing` each wrap a builder.
- `status` makes the gRPC statuses, `outcomes` describes how a call ended, and `logs`, `metrics` and
  `tracing` report that. `line_writer` writes the log in a thread, and `free_memory` returns freed
  memory to the system.

Both the client and the proxy import `shared`, which imports neither.
"""
