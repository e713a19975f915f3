# SPDX-License-Identifier: MIT
"""Checks, canonicalizes and hashes messages in polars. Importing this module adds the namespace
`tvix` to expressions.

    >>> import polars
    >>> import tvix_build.polars
    >>> frame = polars.DataFrame({"request": [b"\\x0a\\x09/bin/true", b"", None]})
    >>> frame.select(polars.col("request").tvix.valid())["request"].to_list()
    [True, False, None]

Requires polars, which the extra `polars` installs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import polars

from tvix_build._core.batch import canonicalize_batch, check_batch
from tvix_build._core.report import Kind, KindLike, MessageType, Schema, SchemaLike, message_type

__all__ = ["TvixNamespace"]

_VIOLATIONS = polars.List(
    polars.Struct({"code": polars.String, "path": polars.String, "message": polars.String})
)
_COLUMNS = {
    "valid": polars.Boolean(),
    "canonical": polars.Boolean(),
    "digest": polars.Binary(),
    "violations": _VIOLATIONS,
}


@polars.api.register_expr_namespace("tvix")
class TvixNamespace:
    """The namespace `polars.col("request").tvix`. The expression must be binary, with messages of
    one kind and schema. Null input gives null. Invalid messages do not fail a query. A batch is
    checked on all CPUs.

    Raises:
        ValueError: from all methods, if the kind or the schema is unknown.
    """

    def __init__(self, expression: polars.Expr) -> None:
        self._expression = expression

    def check(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """Return a struct of `valid`, `canonical`, `digest` and `violations`, computed in one
        pass."""
        return self._map(_check, polars.Struct(_COLUMNS), kind, schema)

    def valid(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """Return whether each message is valid, as Boolean."""
        return self._column("valid", kind, schema)

    def canonical(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """Return whether each message is valid and canonical, as Boolean."""
        return self._column("canonical", kind, schema)

    def digest(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """Return the digests, Binary of 32 bytes; null for a message without a digest."""
        return self._column("digest", kind, schema)

    def violations(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """Return lists of structs of `code`, `path` and `message`."""
        return self._column("violations", kind, schema)

    def canonicalize(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """Return the canonical encodings, as Binary; null for a message without one."""
        return self._map(_canonicalize, polars.Binary(), kind, schema)

    def _column(self, name: str, kind: KindLike, schema: SchemaLike) -> polars.Expr:
        return self._map(partial(_column, name=name), _COLUMNS[name], kind, schema)

    def _map(
        self,
        function: Callable[[polars.Series, MessageType], polars.Series],
        type: polars.DataType,
        kind: KindLike,
        schema: SchemaLike,
    ) -> polars.Expr:
        wanted = message_type(Kind(kind), Schema(schema))
        return self._expression.map_batches(
            lambda messages: _of_present(lambda some: function(some, wanted), messages),
            return_dtype=type,
            is_elementwise=True,
        )


def _check(messages: polars.Series, kind: MessageType) -> polars.Series:
    """Return the results of messages without nulls."""
    return polars.DataFrame(check_batch(messages, kind=kind.kind, schema=kind.schema)).to_struct()


def _column(messages: polars.Series, kind: MessageType, name: str) -> polars.Series:
    return polars.DataFrame(check_batch(messages, kind=kind.kind, schema=kind.schema))[name]


def _canonicalize(messages: polars.Series, kind: MessageType) -> polars.Series:
    accepted = _column(messages, kind, "digest").is_not_null()
    return _where(accepted, messages, lambda some: _encodings(some, kind))


def _encodings(messages: polars.Series, kind: MessageType) -> polars.Series:
    return polars.Series(
        list(canonicalize_batch(messages, kind=kind.kind, schema=kind.schema)), dtype=polars.Binary
    )


def _of_present(
    function: Callable[[polars.Series], polars.Series], messages: polars.Series
) -> polars.Series:
    """Call a function with the messages that are not null; the result is null for the others."""
    if not messages.has_nulls():
        return function(messages)
    return _where(messages.is_not_null(), messages, function)


def _where(
    wanted: polars.Series,
    messages: polars.Series,
    function: Callable[[polars.Series], polars.Series],
) -> polars.Series:
    """Call a function with the selected messages; the result is null for the others."""
    places = polars.when(wanted).then(wanted.cum_sum().cast(polars.Int64) - 1)
    return function(messages.filter(wanted)).gather(polars.select(places).to_series())
