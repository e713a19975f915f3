# SPDX-License-Identifier: MIT
"""Writes tests/vectors/*.json from vector_sources; with --check, only says which are stale.

    python tests/make_vectors.py [--check]

A file is one JSON object, with a line for each vector: an object whose keys come in this order.
Strings hold printable ASCII without quotes and backslashes, so that a reader needs no more than
to look for the next quote.

    name, about     a name, unique in its file; what is particular about it
    kind            "build-request", "build" or "directory"
    schema          "tvix.build.v1@2024" or "snix.build.v1"; absent where it is "tvix.build.v1"
    hex             the input
    request_hex     the BuildRequest that the input answers; absent where it is checked alone
    valid, canonical
    digest          BLAKE3 of the canonical encoding, hex; null where that is refused
    canonical_hex   the canonical encoding; null where it is refused
    violations      all of them, each as [code, path], in their order
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from blake3 import blake3

from reference import ReferenceReport, canonicalize, check
from vector_sources import (
    decoding,
    digests,
    merging,
    packed,
    paths_later,
    rules_build,
    rules_build_2024,
    rules_build_request,
    rules_build_snix,
    rules_directory,
    rules_directory_snix,
    rules_request_later,
    sorting,
    unknown_fields,
    utf8,
)
from vector_sources.topic import Topic, Vector

VECTORS = Path(__file__).with_name("vectors")

TOPICS: tuple[Topic, ...] = (
    rules_build_request.TOPIC,
    rules_build.TOPIC,
    rules_directory.TOPIC,
    sorting.TOPIC,
    unknown_fields.TOPIC,
    decoding.TOPIC,
    merging.TOPIC,
    utf8.TOPIC,
    digests.TOPIC,
    rules_request_later.TOPIC_2024,
    rules_request_later.TOPIC_SNIX,
    paths_later.TOPIC_2024,
    paths_later.TOPIC_SNIX,
    rules_build_2024.TOPIC,
    rules_build_snix.TOPIC,
    rules_directory_snix.TOPIC,
    packed.TOPIC,
    packed.TOPIC_2024,
)

ORIGIN = (
    "Made by hand in tests/vector_sources/{name}.py, expectations and canonical bytes too; "
    "digests by BLAKE3 1.0 (PyPI). Held against the rules in plain Python on protobuf "
    "(tests/reference.py). To change it, change the source and run tests/make_vectors.py."
)


def disagreement(vector: Vector) -> str | None:
    """What the reference finds otherwise than `vector` says, or None."""
    report = check(vector.data, vector.kind, vector.schema, vector.request)
    digest = None if vector.encoding is None else blake3(vector.encoding).digest()
    expected = ReferenceReport(vector.valid, vector.canonical, digest, list(vector.violations))
    if report != expected:
        return f"{vector.name}: expected {expected}, the reference finds {report}"
    if vector.encoding is None:
        return None
    if canonicalize(vector.data, vector.kind, vector.schema) != vector.encoding:
        return f"{vector.name}: the reference encodes it otherwise"
    return None


def to_json(topic: Topic) -> str:
    """The text of the topic's file."""
    rows = [vector.to_json() for vector in topic.vectors]
    if any("\\" in row or not row.isascii() for row in rows):
        raise ValueError(f"{topic.name}: a string needs an escape")
    origin = ORIGIN.format(name=topic.source or topic.name)
    head = f'{{"origin": "{origin}",\n"about": "{topic.about}",\n"vectors": [\n'
    return head + ",\n".join(rows) + "\n]}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write tests/vectors/*.json.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if one is stale")
    only_check = parser.parse_args().check
    failures = []
    for topic in TOPICS:
        failures += [found for vector in topic.vectors if (found := disagreement(vector))]
        path = VECTORS / f"{topic.name}.json"
        if not only_check:
            path.write_text(to_json(topic))
        elif not path.exists() or path.read_text() != to_json(topic):
            failures.append(f"{path.name} is stale")
        print(f"{path.name}: {len(topic.vectors)} vectors")
    print(*failures, sep="\n", end="\n" if failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
