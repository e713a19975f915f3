# SPDX-License-Identifier: MIT
"""Order and duplicates in every sorted list: unsigned bytes, first descent, each repetition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vector_sources.parts import (
    ARGS,
    DIGEST,
    SYSTEM,
    constraints,
    directory,
    env,
    file,
    inputs,
    outputs,
    ro_paths,
    symlink,
)
from vector_sources.topic import BUILD_REQUEST, Topic

TOPIC = Topic("sorting", BUILD_REQUEST, "order and duplicates in sorted lists")

Maker = Callable[[Sequence[bytes | str]], bytes]


def _env_list(keys: Sequence[bytes | str]) -> bytes:
    return b"".join(env(key) for key in keys)


def _input_list(names: Sequence[bytes | str]) -> bytes:
    return inputs(*(file(name) for name in names))


def _output_list(names: Sequence[bytes | str]) -> bytes:
    return outputs(*names)


def _path_list(paths: Sequence[bytes | str]) -> bytes:
    slashed = [b"/" + (path.encode() if isinstance(path, str) else path) for path in paths]
    return constraints(SYSTEM, ro_paths(*slashed))


LISTS: dict[str, Maker] = {
    "outputs": _output_list,
    "environment_vars": _env_list,
    "inputs": _input_list,
    "constraints.available_ro_paths": _path_list,
}


def _in_order(label: str, about: str, keys: Sequence[bytes | str]) -> None:
    """Add vectors with `keys` in each list, which are canonical."""
    for name, make in LISTS.items():
        TOPIC.canonical(f"{name}_{label}", f"{name}: {about}", ARGS + make(keys))


def _out_of_order(label: str, about: str, keys: Sequence[str], order: str, at: int) -> None:
    """Add vectors with `keys` in each list: not_sorted at index `at`; `order` is sorted."""
    for name, make in LISTS.items():
        TOPIC.unsorted(
            f"{name}_{label}",
            f"{name}: {about}",
            ARGS + make(keys),
            ARGS + make(order.split(" ")),
            f"{name}[{at}]",
        )


def _repeated(
    label: str, about: str, keys: Sequence[str], duplicates: Sequence[int], descent: int = 0
) -> None:
    """Add vectors with `keys` in each list: duplicates, and not_sorted at `descent` unless 0."""
    for name, make in LISTS.items():
        violations = [(i, "duplicate") for i in duplicates]
        if descent:
            violations.append((descent, "not_sorted"))
        violations.sort(key=lambda found: (found[0], found[1] != "not_sorted"))
        TOPIC.refused(
            f"{name}_{label}",
            f"{name}: {about}",
            ARGS + make(keys),
            *((code, f"{name}[{i}]") for i, code in violations),
        )


# ---- in order

_in_order("one", "one element", ["a"])
_in_order("ascending", "ascending keys of several lengths", ["a", "aa", "ab", "b", "ba"])
_in_order("prefix_first", "a key before a longer key with that prefix", ["ab", "ab\x01", "abc"])
_in_order("case", "sorted by byte: upper case before lower case", ["A", "B", "_", "a", "b"])
_in_order("numbers", "sorted by byte: 10 before 9", ["1", "10", "2"])
_in_order(
    "unsigned",
    "sorted by unsigned byte: 7f before c2 80, the first two-byte character, before f4",
    ["\x7f", "\u0080", "\U0010ffff"],
)
_in_order(
    "not_utf16",
    "sorted by byte: U+FFFD before U+10000; UTF-16 code units have the opposite order",
    ["\ufffd", "\U00010000"],
)
_in_order(
    "long_prefix",
    "keys that differ after 8, 16 and 64 equal bytes",
    ["k" * 64 + "a", "k" * 64 + "b", "k" * 16 + "la", "k" * 16 + "lb", "k" * 8 + "mx"],
)
_in_order("lengths_7_to_9", "keys of 7, 8 and 9 equal bytes", ["k" * 7, "k" * 8, "k" * 9])
TOPIC.canonical(
    "names_unsigned",
    "names of nodes are sorted by unsigned byte: 7f, 80, ff",
    ARGS + inputs(file(b"\x7f"), directory(b"\x80"), symlink(b"\xff"), file(b"\xff\x01")),
)
TOPIC.unsorted(
    "names_signed",
    "names of nodes sorted by signed byte: 80 before 7f",
    ARGS + inputs(file(b"\x80"), file(b"\x7f")),
    ARGS + inputs(file(b"\x7f"), file(b"\x80")),
    "inputs[1]",
)
TOPIC.canonical(
    "kinds_mixed",
    "inputs are sorted by name across kinds",
    ARGS + inputs(symlink("a"), file("b"), directory("c"), file("d"), symlink("e")),
)
TOPIC.unsorted(
    "kinds_grouped",
    "inputs sorted only within each kind",
    ARGS + inputs(directory("c"), file("b"), file("d"), symlink("a"), symlink("e")),
    ARGS + inputs(symlink("a"), file("b"), directory("c"), file("d"), symlink("e")),
    "inputs[1]",
)

# ---- out of order: reported once per list, at the first descent

_out_of_order("two", "two keys, swapped", ["b", "a"], "a b", 1)
_out_of_order(
    "descending",
    "descending keys: only the first descent is reported",
    ["d", "c", "b", "a"],
    "a b c d",
    1,
)
_out_of_order("last", "only the last key is out of order", ["b", "c", "d", "a"], "a b c d", 3)
_out_of_order(
    "twice", "two descents: only the first is reported", ["a", "c", "b", "e", "d"], "a b c d e", 2
)
_out_of_order("longer_first", "a key after a longer key with that prefix", ["ab", "a"], "a ab", 1)
_out_of_order("signed", "sorted by signed byte", ["\u0080", "\x7f"], "\x7f \u0080", 1)
_out_of_order(
    "utf16", "sorted by UTF-16 code unit", ["\U00010000", "\ufffd"], "\ufffd \U00010000", 1
)
_out_of_order("by_case", "sorted alphabetically, regardless of case", ["a", "B", "c"], "B a c", 1)
_out_of_order(
    "nine_bytes",
    "keys that differ in the ninth byte",
    ["k" * 8 + "b", "k" * 8 + "a"],
    f"{'k' * 8}a {'k' * 8}b",
    1,
)
_out_of_order(
    "lengths",
    "a shorter key after a longer one",
    ["k" * 9, "k" * 8, "k" * 7],
    f"{'k' * 7} {'k' * 8} {'k' * 9}",
    1,
)

TOPIC.unsorted(
    "all_lists",
    "all lists of a request out of order",
    ARGS
    + outputs("b", "a")
    + env("D")
    + env("C")
    + inputs(file("f"), directory("e"))
    + constraints(SYSTEM, ro_paths("/h", "/g")),
    ARGS
    + outputs("a", "b")
    + env("C")
    + env("D")
    + inputs(directory("e"), file("f"))
    + constraints(SYSTEM, ro_paths("/g", "/h")),
    "outputs[1]",
    "environment_vars[1]",
    "inputs[1]",
    "constraints.available_ro_paths[1]",
)
TOPIC.unsorted(
    "values_sorted_with_keys",
    "values of variables and digests of nodes are sorted with their keys",
    ARGS + env("B", "1") + env("A", "2") + inputs(file("y", DIGEST), directory("x", bytes(32), 5)),
    ARGS + env("A", "2") + env("B", "1") + inputs(directory("x", bytes(32), 5), file("y", DIGEST)),
    "environment_vars[1]",
    "inputs[1]",
)


def _long_list() -> None:
    """Add 300 inputs in a fixed unsorted order: too many for the sort of short lists."""
    names = [f"{i * 7 % 300:03}-{'n' * (i % 40)}" for i in range(300)]
    descent = next(i for i in range(1, 300) if names[i] < names[i - 1])
    TOPIC.unsorted(
        "three_hundred",
        "300 inputs; the name of input i starts with the number 7*i mod 300",
        ARGS + _input_list(names),
        ARGS + _input_list(sorted(names)),
        f"inputs[{descent}]",
    )


_long_list()

# ---- duplicates

_repeated("equal", "two equal keys, adjacent", ["a", "a"], [1])
_repeated(
    "equal_apart",
    "two equal keys, not adjacent, so also out of order",
    ["a", "b", "a"],
    [2],
    descent=2,
)
_repeated(
    "equal_thrice",
    "three equal keys, adjacent: the second and third are duplicates",
    ["a", "a", "a"],
    [1, 2],
)
_repeated(
    "equal_thrice_apart",
    "three equal keys, not adjacent: all but the first are duplicates; one descent is reported",
    ["b", "a", "b", "a", "b"],
    [2, 3, 4],
    descent=1,
)
_repeated("two_pairs", "two keys, each twice", ["a", "a", "b", "b"], [1, 3])
_repeated("equal_long", "two equal keys of 100 bytes", ["k" * 100, "k" * 100], [1])
_repeated("not_equal_before", "a descent before the duplicate", ["c", "a", "c"], [2], descent=1)
TOPIC.refused(
    "env_values_differ",
    "equal keys of variables with different values",
    ARGS + env("A", "1") + env("A", "2"),
    ("duplicate", "environment_vars[1]"),
)
TOPIC.refused(
    "node_kinds_differ",
    "equal names of nodes of different kinds",
    ARGS + inputs(directory("a"), symlink("a")),
    ("duplicate", "inputs[1]"),
)
TOPIC.canonical("equal_args", "equal arguments, which are allowed", ARGS + ARGS)
TOPIC.canonical(
    "equal_across_lists",
    "the same key in different lists, which is allowed",
    ARGS + outputs("a") + env("a"),
)

for _size in range(1, 10):
    TOPIC.refused(
        f"duplicate_of_{_size}_bytes",
        f"equal names, length {_size}, followed by different bytes on the wire",
        ARGS + outputs("n" * _size, "n" * _size) + inputs(file("x")),
        ("duplicate", "outputs[1]"),
    )
