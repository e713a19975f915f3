# SPDX-License-Identifier: MIT
"""All rules for a Directory of snix, which has the same fields and rules as that of tvix."""

from __future__ import annotations

from dataclasses import replace

from vector_sources import rules_directory
from vector_sources.topic import DIRECTORY, SNIX, Topic

TOPIC = Topic(
    "rules_directory_snix",
    DIRECTORY,
    "rules of a castore Directory of snix, which are those of tvix",
    schema=SNIX,
    vectors=[replace(vector, schema=SNIX) for vector in rules_directory.TOPIC.vectors],
)
