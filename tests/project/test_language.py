# SPDX-License-Identifier: MIT
"""The text of the project uses the standard terms, and commit subjects are short.

`TERMS` has the words that must not return, and what to write instead. `ALLOWED` has the places
where such a word is right.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

from waiting import LIMIT

ROOT = Path(__file__).parents[2]
SUBJECT_LENGTH = 72

SUFFIXES = {
    *(".bazel", ".bzl", ".c", ".cc", ".cpp", ".go", ".h", ".js", ".md", ".proto", ".py", ".pyi"),
    *(".toml", ".yaml"),
}
PROGRAMS = ("bench/run", "packaging/*", "tools/*")
"""Text files without a suffix."""
NOT_SCANNED = (
    *("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "build", "dist", "bazel-*"),  # generated
    *(".*", "*/node_modules", "bazel/registry", "external", "third_party"),
    "tests/project/test_language.py",
)


class Term(NamedTuple):
    """A word that must not return.

    Attributes:
        pattern: a regular expression, which ignores case.
        instead: what to write.
    """

    pattern: str
    instead: str


TERMS = [
    Term(r"folders?", "directory"),
    Term(r"\bdoors?\b", "validating proxy, or `serve` for the command"),
    Term(r"answer(s|ed|ing)?(?![a-z])", "response; a function returns, a server responds"),
    Term(r"\bOTHER_DIGEST\b", "DIGEST_MISMATCH"),
    Term(r"\bhand(s|ed)? over\b", "forward"),
    Term(r"\bturn(s|ed)? away\b", "reject"),
    Term(r"\bg(ive|ives|ave|iven) up\b", "cancel"),
    Term(r"\btime is up\b", "time out"),
    Term(r"\b(whole|wholly) or not at all\b", "atomically: complete or absent"),
    Term(r"\bin truth\b", "the total number"),
    Term(r"\bso many\b", "the number, count, limit or capacity"),
    Term(r"\bas ever\b", "nothing, or what it is like"),
    Term(r"\bto be had\b", "available"),
    Term(r"\b(is|are|was|were|be|been) said\b", "the thing: result, value, violation"),
    Term(r"\b(can|cannot|could) say\b|\bcan be said\b|\bcannot be said\b", "can represent"),
    Term(r"\bshall\b", "must, or the present tense"),
    Term(r"\btold (by|of|in)\b|\b(is|are|was|were|be) told\b", "determined by; gets; reports"),
    Term(r"\basked\b", "requested, called, or who does what"),
    Term(r"\bof null,? all\b", "NULL input gives NULL"),
]


class Allowed(NamedTuple):
    """A place where such a word is right.

    Attributes:
        path: a pattern of paths.
        pattern: a regular expression for the text, which ignores case.
        reason: why the word is right there.
    """

    path: str
    pattern: str
    reason: str


ALLOWED: list[Allowed] = []


class Hit(NamedTuple):
    """A word that must not return, in a line of a file."""

    path: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r}: write {self.instead}"


def project_files() -> Iterator[Path]:
    """Yield the text files of the project, in a checkout or in the runfiles of Bazel."""
    for directory, directories, files in os.walk(ROOT):
        here = Path(directory).relative_to(ROOT)
        directories[:] = sorted(one for one in directories if not is_skipped(here / one))
        for path in (here / one for one in sorted(files)):
            is_text = path.suffix in SUFFIXES or any(path.match(one) for one in PROGRAMS)
            if is_text and not is_skipped(path):
                yield ROOT / path


def is_skipped(path: Path) -> bool:
    """Return whether a file or a directory, relative to the root, is not scanned."""
    return any(fnmatch(path.as_posix(), one) for one in NOT_SCANNED)


def find_hits(path: str, text: str) -> Iterator[Hit]:
    """Yield the words in the text of a file that must not return."""
    allowed = [one.pattern for one in ALLOWED if fnmatch(path, one.path)]
    for number, line in enumerate(text.splitlines(), 1):
        for pattern in allowed:
            line = re.sub(pattern, "", line, flags=re.IGNORECASE)
        for term in TERMS:
            for match in re.finditer(term.pattern, line, re.IGNORECASE):
                yield Hit(path, number, match[0], term.instead)


@pytest.mark.slow
def test_text_uses_the_standard_terms() -> None:
    hits = [
        str(hit)
        for path in project_files()
        for hit in find_hits(path.relative_to(ROOT).as_posix(), path.read_text())
    ]
    assert hits == [], "\n".join(hits)


def test_files_of_every_kind_are_scanned() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in project_files()}
    expected = {
        "README.md",
        "docs/serve.md",
        "native/tvix_build.h",
        "proto/tvix/build/protos/build.proto",
        "py/tvix_build/__init__.py",
        "py/pieces.c",
        "tests/BUILD.bazel",
        "tests/native/files_test.c",
        "tests/project/test_docs.py",
        "tools/setup",
    }
    assert expected - names == set()


def test_hits_have_the_place_and_the_term() -> None:
    text = "one line\nA Folder of files, the answer\n"
    assert [str(hit) for hit in find_hits("docs/x.md", text)] == [
        "docs/x.md:2: 'Folder': write directory",
        "docs/x.md:2: 'answer': write response; a function returns, a server responds",
    ]


def git(*arguments: str) -> str | None:
    """Return the output of a git command in the project; None if it fails."""
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    return done.stdout.strip() if done.returncode == 0 else None


def test_commit_subjects_are_short() -> None:
    if shutil.which("git") is None or git("rev-parse", "--show-prefix") != "":
        pytest.skip("needs git, and a checkout")
    bases = ("@{upstream}", "origin/main", "main")
    base = next((one for one in bases if git("rev-parse", "--verify", "--quiet", one)), None)
    if base is None:
        pytest.skip(f"needs a branch to compare with: {', '.join(bases)}")
    subjects = git("log", "--format=%s", f"{base}..HEAD")
    assert subjects is not None
    assert [one for one in subjects.splitlines() if len(one) > SUBJECT_LENGTH] == []
