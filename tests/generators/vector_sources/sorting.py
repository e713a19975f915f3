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

TOPIC = Topic("sorting", BUILD_REQUEST, "order and duplicates of the sorted lists")

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

_in_order("one", "one element is in order", ["a"])
_in_order("ascending", "ascending, of several lengths", ["a", "aa", "ab", "b", "ba"])
_in_order("prefix_first", "a key before the longer one that it begins", ["ab", "ab\x01", "abc"])
_in_order("case", "by byte, not by alphabet", ["A", "B", "_", "a", "b"])
_in_order("numbers", "by byte, not by number", ["1", "10", "2"])
_in_order(
    "unsigned",
    "bytes are unsigned: 7f, then c2 80 (the least of two bytes), then f4",
    ["\x7f", "\u0080", "\U0010ffff"],
)
_in_order(
    "not_utf16",
    "by byte: U+FFFD before U+10000, which UTF-16 would order the other way",
    ["\ufffd", "\U00010000"],
)
_in_order(
    "long_prefix",
    "keys that differ after 8, 16 and 64 equal bytes",
    ["k" * 64 + "a", "k" * 64 + "b", "k" * 16 + "la", "k" * 16 + "lb", "k" * 8 + "mx"],
)
_in_order("lengths_7_to_9", "equal bytes, lengths 7, 8 and 9", ["k" * 7, "k" * 8, "k" * 9])
TOPIC.canonical(
    "names_unsigned",
    "nodes' names are bytes: 7f, 80, ff",
    ARGS + inputs(file(b"\x7f"), directory(b"\x80"), symlink(b"\xff"), file(b"\xff\x01")),
)
TOPIC.unsorted(
    "names_signed",
    "nodes' names as signed bytes would order them: 80 before 7f",
    ARGS + inputs(file(b"\x80"), file(b"\x7f")),
    ARGS + inputs(file(b"\x7f"), file(b"\x80")),
    "inputs[1]",
)
TOPIC.canonical(
    "kinds_mixed",
    "inputs are sorted by name, whatever their kind",
    ARGS + inputs(symlink("a"), file("b"), directory("c"), file("d"), symlink("e")),
)
TOPIC.unsorted(
    "kinds_grouped",
    "inputs sorted within their kinds only",
    ARGS + inputs(directory("c"), file("b"), file("d"), symlink("a"), symlink("e")),
    ARGS + inputs(symlink("a"), file("b"), directory("c"), file("d"), symlink("e")),
    "inputs[1]",
)

# ---- out of order: reported once per list, at the first descent

_out_of_order("two", "two, swapped", ["b", "a"], "a b", 1)
_out_of_order("descending", "descending: the first only", ["d", "c", "b", "a"], "a b c d", 1)
_out_of_order("last", "only the last is too small", ["b", "c", "d", "a"], "a b c d", 3)
_out_of_order("twice", "two descents: the first only", ["a", "c", "b", "e", "d"], "a b c d e", 2)
_out_of_order("longer_first", "a key after the longer one", ["ab", "a"], "a ab", 1)
_out_of_order("signed", "as signed bytes would order them", ["\u0080", "\x7f"], "\x7f \u0080", 1)
_out_of_order(
    "utf16", "as UTF-16 would order them", ["\U00010000", "\ufffd"], "\ufffd \U00010000", 1
)
_out_of_order("by_case", "as an alphabet would order them", ["a", "B", "c"], "B a c", 1)
_out_of_order(
    "nine_bytes",
    "keys that differ in the ninth byte",
    ["k" * 8 + "b", "k" * 8 + "a"],
    f"{'k' * 8}a {'k' * 8}b",
    1,
)
_out_of_order(
    "lengths",
    "shorter after longer",
    ["k" * 9, "k" * 8, "k" * 7],
    f"{'k' * 7} {'k' * 8} {'k' * 9}",
    1,
)

TOPIC.unsorted(
    "all_lists",
    "every list of a request out of order",
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
    "values_move_with_keys",
    "each variable keeps its value, each node its digest",
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
        "300 inputs, the i-th beginning with the number 7 i mod 300",
        ARGS + _input_list(names),
        ARGS + _input_list(sorted(names)),
        f"inputs[{descent}]",
    )


_long_list()

# ---- duplicates

_repeated("equal", "adjacent", ["a", "a"], [1])
_repeated("equal_apart", "not adjacent, so not sorted either", ["a", "b", "a"], [2], descent=2)
_repeated("equal_thrice", "three times, adjacent: the second and third", ["a", "a", "a"], [1, 2])
_repeated(
    "equal_thrice_apart",
    "three times, apart: each but the first; one descent reported",
    ["b", "a", "b", "a", "b"],
    [2, 3, 4],
    descent=1,
)
_repeated("two_pairs", "two keys, twice each", ["a", "a", "b", "b"], [1, 3])
_repeated("equal_long", "the same 100 bytes", ["k" * 100, "k" * 100], [1])
_repeated("not_equal_before", "a descent before the repetition", ["c", "a", "c"], [2], descent=1)
TOPIC.refused(
    "env_values_differ",
    "a key twice is a duplicate though the values differ",
    ARGS + env("A", "1") + env("A", "2"),
    ("duplicate", "environment_vars[1]"),
)
TOPIC.refused(
    "node_kinds_differ",
    "a name twice is a duplicate though the kinds differ",
    ARGS + inputs(directory("a"), symlink("a")),
    ("duplicate", "inputs[1]"),
)
TOPIC.canonical("equal_args", "arguments may repeat", ARGS + ARGS)
TOPIC.canonical("equal_across_lists", "lists do not share keys", ARGS + outputs("a") + env("a"))

for _size in range(1, 10):
    TOPIC.refused(
        f"duplicate_of_{_size}_bytes",
        "the same name twice; what follows the two differs",
        ARGS + outputs("n" * _size, "n" * _size) + inputs(file("x")),
        ("duplicate", "outputs[1]"),
    )
