# SPDX-License-Identifier: MIT
"""All rules for a Directory, satisfied and violated."""

from __future__ import annotations

from vector_sources.parts import directory, file, symlink
from vector_sources.topic import DIRECTORY, Topic
from wire import blob, number

TOPIC = Topic(
    "rules_directory", DIRECTORY, "rules of a castore Directory, on both sides of their limits"
)

GREATEST = 2**64 - 1

TOPIC.canonical("empty", "empty message: an empty directory", b"")
TOPIC.canonical(
    "everything",
    "every field is set; names are sorted within each list, not across lists",
    directory("b", size=4)
    + directory("e")
    + file("a", size=1)
    + file("d", executable=True)
    + symlink("c", "../x"),
)

# ---- elements

TOPIC.refused(
    "empty_elements",
    "elements without any field; the empty name occurs three times",
    blob(1) + blob(2) + blob(3),
    ("invalid_name", "directories[0].name"),
    ("invalid_digest", "directories[0].digest"),
    ("duplicate", "files[0]"),
    ("invalid_name", "files[0].name"),
    ("invalid_digest", "files[0].digest"),
    ("duplicate", "symlinks[0]"),
    ("invalid_name", "symlinks[0].name"),
    ("invalid_symlink_target", "symlinks[0].target"),
)
for _list, _make in (("directories", directory), ("files", file), ("symlinks", symlink)):
    for _label, _about, _name in (
        ("255", "255 bytes", b"n" * 255),
        ("not_utf8", "bytes that are not UTF-8", b"\xff\x80"),
        ("three_dots", "three dots", b"..."),
    ):
        TOPIC.canonical(f"{_list}_name_{_label}", f"{_list}: {_about}", _make(_name))
    for _label, _about, _name in (
        ("empty", "empty", b""),
        ("256", "256 bytes", b"n" * 256),
        ("dot", "one dot", b"."),
        ("two_dots", "two dots", b".."),
        ("slash", "contains a slash", b"a/b"),
        ("nul", "contains a NUL", b"a\0b"),
    ):
        TOPIC.refused(
            f"{_list}_name_{_label}",
            f"{_list}: {_about}",
            _make(_name),
            ("invalid_name", f"{_list}[0].name"),
        )
for _list, _make in (("directories", directory), ("files", file)):
    for _length in (0, 31, 33):
        TOPIC.refused(
            f"{_list}_digest_{_length}",
            f"{_list}: a digest of {_length} bytes",
            _make("a", bytes(_length)),
            ("invalid_digest", f"{_list}[0].digest"),
        )
TOPIC.canonical("target_4095", "symlink target: 4095 bytes", symlink("a", "t" * 4095))
TOPIC.refused(
    "targets",
    "symlink targets: empty, 4096 bytes, contains a NUL",
    symlink("a", "") + symlink("b", "t" * 4096) + symlink("c", "t\0t"),
    ("invalid_symlink_target", "symlinks[0].target"),
    ("invalid_symlink_target", "symlinks[1].target"),
    ("invalid_symlink_target", "symlinks[2].target"),
)

# ---- order

for _list, _make in (("directories", directory), ("files", file), ("symlinks", symlink)):
    TOPIC.unsorted(
        f"unsorted_{_list}",
        f"{_list} out of order",
        _make("a") + _make("c") + _make("b"),
        _make("a") + _make("b") + _make("c"),
        f"{_list}[2]",
    )
TOPIC.unsorted(
    "unsorted_each",
    "all lists out of order: reported once per list, at the first element that is out of order",
    directory("b")
    + directory("a")
    + file("e")
    + file("d")
    + file("c")
    + symlink("f")
    + symlink("h")
    + symlink("g"),
    directory("a")
    + directory("b")
    + file("c")
    + file("d")
    + file("e")
    + symlink("f")
    + symlink("g")
    + symlink("h"),
    "directories[1]",
    "files[1]",
    "symlinks[2]",
)
TOPIC.other_bytes(
    "lists_interleaved",
    "interleaved elements of the three lists, each list sorted",
    symlink("c") + file("b") + directory("a") + file("e") + directory("d") + symlink("f"),
    directory("a") + directory("d") + file("b") + file("e") + symlink("c") + symlink("f"),
)

# ---- duplicates

TOPIC.refused(
    "duplicate_in_list",
    "two files with the same name",
    file("a") + file("a"),
    ("duplicate", "files[1]"),
)
TOPIC.canonical(
    "common_prefix",
    "names with a common prefix of ten bytes",
    file("same-name-1") + file("same-name-2") + file("z"),
)
for _pair, _data, _path in (
    ("directory_file", directory("a") + file("a"), "files[0]"),
    ("directory_symlink", directory("a") + symlink("a"), "symlinks[0]"),
    ("file_symlink", file("a") + symlink("a"), "symlinks[0]"),
    ("symlink_file_directory_on_wire", symlink("a") + file("b") + directory("a"), "symlinks[0]"),
):
    TOPIC.refused(
        f"duplicate_{_pair}",
        "the same name in two lists: the duplicate is in the list that is later in the schema",
        _data,
        ("duplicate", _path),
    )
TOPIC.refused(
    "duplicate_across_all",
    "the same name in all lists, twice in the first, with other names between",
    directory("a")
    + directory("a")
    + directory("b")
    + file("A")
    + file("a")
    + symlink("a")
    + symlink("c"),
    ("duplicate", "directories[1]"),
    ("duplicate", "files[1]"),
    ("duplicate", "symlinks[0]"),
)
TOPIC.refused(
    "duplicate_unsorted",
    "duplicates in unsorted lists and across lists, not adjacent",
    directory("b") + directory("a") + directory("b") + file("c") + file("a"),
    ("not_sorted", "directories[1]"),
    ("duplicate", "directories[2]"),
    ("not_sorted", "files[1]"),
    ("duplicate", "files[1]"),
)

# ---- size

TOPIC.canonical(
    "size_at_limit",
    "one directory, 1 + size 2^64-2: the sum is 2^64-1",
    directory("a", size=GREATEST - 1),
)
TOPIC.refused(
    "size_above_limit",
    "one directory, 1 + size 2^64-1: the sum is 2^64",
    directory("a", size=GREATEST),
    ("size_overflow", ""),
)
TOPIC.canonical(
    "size_sum",
    "two directories, a file and a symlink: the sum is 2^64-1",
    directory("a", size=2**63)
    + directory("b", size=GREATEST - 2**63 - 4)
    + file("c", size=GREATEST)
    + symlink("d"),
)
TOPIC.refused(
    "size_sum_above",
    "two directories, a file and a symlink: the sum is 2^64",
    directory("a", size=2**63)
    + directory("b", size=GREATEST - 2**63 - 3)
    + file("c", size=GREATEST)
    + symlink("d"),
    ("size_overflow", ""),
)
TOPIC.refused(
    "size_by_file",
    "a directory of size 2^64-2 and a file: the sum is 2^64",
    directory("a", size=GREATEST - 1) + file("b"),
    ("size_overflow", ""),
)
TOPIC.refused(
    "size_by_symlink",
    "a directory of size 2^64-2 and a symlink: the sum is 2^64",
    directory("a", size=GREATEST - 1) + symlink("b"),
    ("size_overflow", ""),
)
TOPIC.refused(
    "size_by_file_before",
    "a file before the directory on the wire: the sum is 2^64",
    file("b") + directory("a", size=GREATEST - 1),
    ("size_overflow", ""),
)
TOPIC.refused(
    "size_wraps_twice",
    "three directories of size 2^64-1: the sum exceeds 2^65",
    directory("a", size=GREATEST) + directory("b", size=GREATEST) + directory("c", size=GREATEST),
    ("size_overflow", ""),
)
TOPIC.refused(
    "size_wraps_to_small",
    "two directories of size 2^63: the sum modulo 2^64 is 2",
    directory("a", size=2**63) + directory("b", size=2**63),
    ("size_overflow", ""),
)
TOPIC.canonical(
    "size_of_files",
    "sizes of files do not count",
    file("a", size=GREATEST) + file("b", size=GREATEST),
)
TOPIC.other_bytes(
    "size_overwritten",
    "size given twice: only the last value counts",
    blob(1, blob(1, "a"), blob(2, bytes(32)), number(3, GREATEST), number(3, 5)),
    directory("a", bytes(32), 5),
)
TOPIC.refused(
    "size_and_other_violations",
    "size_overflow together with other violations",
    directory("a", size=GREATEST) + blob(9) + file("", b""),
    ("unknown_field", ""),
    ("size_overflow", ""),
    ("invalid_name", "files[0].name"),
    ("invalid_digest", "files[0].digest"),
)
