# SPDX-License-Identifier: MIT
"""The stages of the C core name no message and no field of a schema, as ARCHITECTURE.md says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reference
from batches import TYPES

NATIVE = Path(__file__).parents[2] / "native"

#: Files that may name them: the schemas, the public interface, and what is on top of the core.
NOT_STAGES = ("schema*", "kinds.c", "tvix_build.h", "arrow*", "files*", "mounts*", "references*")

#: Names of messages and fields that are also words for other things.
GENERAL_WORDS = {
    *("build", "content", "digest", "file", "key", "name", "path", "root", "schema", "size"),
    *("step", "target", "value"),
}
#: The same in files about BLAKE3: inputs of its function, and nodes of its tree.
HASH_WORDS = {"input", "node", "output"}
#: Input of the library.
CONTEXT_WORDS = {"input"}
#: Members of the public struct with the steps of a plan.
GRAPH_WORDS = {"output"}


def stage_files() -> list[Path]:
    """The files of the C core, but for those that may name messages and fields."""
    files = [path for path in sorted(NATIVE.rglob("*")) if path.suffix in (".c", ".h")]
    return [path for path in files if not any(path.match(pattern) for pattern in NOT_STAGES)]


def names_below(message: Any) -> Iterator[str]:
    """The name of a message in snake case, those of its fields, and the same of their messages."""
    yield re.sub(r"(?<=[a-z])(?=[A-Z])", "_", message.name).lower()
    for field in message.fields:
        yield field.name
        if field.message_type:
            yield from names_below(field.message_type)


def with_plural(words: set[str]) -> set[str]:
    """Return the words, each also with an s."""
    return words | {f"{word}s" for word in words}


def schema_words() -> set[str]:
    """All names in all schemas, in singular and plural, but for general words."""
    names = {"castore", "request", "response"}
    for kind, schema in TYPES:
        names.update(names_below(reference.message_class(kind, schema).DESCRIPTOR))
    return with_plural({name.removesuffix("s") for name in names} | names) - with_plural(
        GENERAL_WORDS
    )


def words_of(text: str) -> set[str]:
    """The words of a text in snake case, and what begins and ends with one at an underscore."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower()
    parts = [word.split("_") for word in re.findall(r"\w+", snake)]
    return {
        "_".join(part[begin:end])
        for part in parts
        for begin in range(len(part))
        for end in range(begin + 1, len(part) + 1)
    }


@pytest.mark.parametrize("path", stage_files(), ids=lambda path: path.name)
def test_stages_name_no_message_and_no_field(path: Path) -> None:
    found = words_of(path.read_text()) & schema_words()
    if path.name.startswith("hash"):
        found -= with_plural(HASH_WORDS)
    if path.name == "context.c":
        found -= CONTEXT_WORDS
    if path.name == "graph.c":
        found -= with_plural(GRAPH_WORDS)
    assert found == set()


def test_the_words_are_found() -> None:
    assert {path.stem for path in stage_files()} >= {"scan", "order", "encode", "hash", "text"}
    assert {"build_request", "needle", "env_var", "inputs_dir", "symlink"} <= schema_words()
    assert words_of("TVIXB_COUNT_NEEDLES, BuildRequest") & schema_words() == {
        "needles",
        "request",
        "build_request",
    }
    for path in NATIVE.rglob("schema_*_v1.h"):
        assert words_of(path.read_text()) & schema_words()
