# SPDX-License-Identifier: MIT
"""Writes tests/vectors/*.json and tests/translations/*.json from vector_sources. With --check, only
reports stale files.

    PYTHONPATH=tests/support python tests/generators/make_vectors.py [--check]     (make vectors)

A file is a JSON object, with a line for each vector: an object with its keys in this order. Strings
are printable ASCII without quotes and backslashes, so that a simple reader can look for the next
quote.

    name, about     a name, unique in the file, and a description
    kind            "build-request", "build", "directory", "step" or "plan"
    schema          "tvix.build.v1@2024" or "snix.build.v1"; absent for "tvix.build.v1" and plans
    hex             the input
    request_hex     the BuildRequest of a response; absent if the response is checked alone
    valid, canonical
    digest          BLAKE3 hash of the canonical encoding in hex; null if there is none
    canonical_hex   the canonical encoding; null if there is none
    violations      all violations in order, each as [code, path]

The files in tests/translations test docs/translation.md: pairs.json has requests in both schemas,
refusals.json has requests without a translation.

    network_access  the argument of the translation
    hex, later_hex  of a pair: canonical bytes in "tvix.build.v1" and in both later schemas
    schema          of a refusal: "tvix.build.v1", or "snix.build.v1" for both later schemas
    reasons         paths of all reasons, in order
    violations      of an invalid request: all violations, as above
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
    rules_plan,
    rules_request_later,
    rules_step,
    sorting,
    translation,
    unknown_fields,
    utf8,
)
from vector_sources.topic import Topic, Vector

VECTORS = Path(__file__).parents[1] / "vectors"
TRANSLATIONS = Path(__file__).parents[1] / "translations"

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
    rules_step.TOPIC,
    rules_plan.TOPIC,
)

ORIGIN = (
    "Written by hand in tests/generators/vector_sources/{name}.py, including expected results and "
    "canonical bytes; digests are computed with BLAKE3 1.0 (PyPI). Checked against a second "
    "implementation of the rules (tests/support/reference.py). To change a vector, change its "
    "source and run tests/generators/make_vectors.py."
)

TRANSLATED = (
    "Written by hand in tests/generators/vector_sources/translation.py. Checked against a second "
    "implementation of the translation (tests/support/reference_translation.py). To change a "
    "vector, change its source and run tests/generators/make_vectors.py."
)


def disagreement(vector: Vector) -> str | None:
    """Return how the result of the reference differs from `vector`; None if it does not."""
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
    """Return the text of a topic's file."""
    rows = [vector.to_json() for vector in topic.vectors]
    return _file_of(rows, ORIGIN.format(name=topic.source or topic.name), topic.about)


def translation_files() -> dict[str, str]:
    """Return the texts of the files in tests/translations, by name."""
    pairs = [one.to_json() for one in translation.PAIRS]
    refusals = [one.to_json() for one in translation.REFUSALS]
    return {
        "pairs.json": _file_of(
            pairs, TRANSLATED, "requests in tvix.build.v1 and in the later schemas"
        ),
        "refusals.json": _file_of(
            refusals, TRANSLATED, "requests without a translation, with the paths of all reasons"
        ),
    }


def _file_of(rows: list[str], origin: str, about: str) -> str:
    if any("\\" in row or not row.isascii() for row in rows):
        raise ValueError(f"{about}: a string needs an escape")
    head = f'{{"origin": "{origin}",\n"about": "{about}",\n"vectors": [\n'
    return head + ",\n".join(rows) + "\n]}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write tests/vectors/*.json.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if one is stale")
    only_check = parser.parse_args().check
    failures = []
    files = {TRANSLATIONS / name: text for name, text in translation_files().items()}
    for topic in TOPICS:
        failures += [found for vector in topic.vectors if (found := disagreement(vector))]
        files[VECTORS / f"{topic.name}.json"] = to_json(topic)
    for path, text in files.items():
        if not only_check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            failures.append(f"{path.name} is stale")
        print(f"{path.name}: {len(text.splitlines()) - 4} vectors")
    print(*failures, sep="\n", end="\n" if failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
