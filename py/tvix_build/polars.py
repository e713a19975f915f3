# SPDX-License-Identifier: MIT
"""Checks, canonicalizes and hashes messages in polars: importing this module gives every expression
the namespace `tvix`.

    >>> import polars
    >>> import tvix_build.polars
    >>> frame = polars.DataFrame({"request": [b"\\x0a\\x09/bin/true", b"", None]})
    >>> frame.select(polars.col("request").tvix.valid())["request"].to_list()
    [True, False, None]

Needs polars, the extra `polars`.
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
    """What `polars.col("request").tvix` has. The expression is one of binary, messages of a kind in
    a schema; of null all is null. A bad message stops no query. A batch is checked by all CPUs.

    Raises:
        ValueError: from every method, if there is no such kind or schema.
    """

    def __init__(self, expression: polars.Expr) -> None:
        self._expression = expression

    def check(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """A struct of `valid`, `canonical`, `digest` and `violations`: one pass for all."""
        return self._map(_check, polars.Struct(_COLUMNS), kind, schema)

    def valid(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """Boolean: which messages are valid."""
        return self._column("valid", kind, schema)

    def canonical(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """Boolean: which messages are valid and encoded canonically."""
        return self._column("canonical", kind, schema)

    def digest(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """Binary of 32 bytes, BLAKE3 of the canonical encoding; null where that is refused."""
        return self._column("digest", kind, schema)

    def violations(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """A list of structs of `code`, `path` and `message`."""
        return self._column("violations", kind, schema)

    def canonicalize(
        self,
        *,
        kind: KindLike = Kind.BUILD_REQUEST,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
    ) -> polars.Expr:
        """Binary: the canonical encoding; null where it is refused."""
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
    """What is said of messages, none of which is null."""
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
    """A function of messages, null where there is none."""
    if not messages.has_nulls():
        return function(messages)
    return _where(messages.is_not_null(), messages, function)


def _where(
    wanted: polars.Series,
    messages: polars.Series,
    function: Callable[[polars.Series], polars.Series],
) -> polars.Series:
    """A function of the messages that are wanted, null for the others."""
    places = polars.when(wanted).then(wanted.cum_sum().cast(polars.Int64) - 1)
    return function(messages.filter(wanted)).gather(polars.select(places).to_series())
