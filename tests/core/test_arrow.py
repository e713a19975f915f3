# SPDX-License-Identifier: MIT
"""Arrow arrays as batches, of every type and from every library. A list of the same messages says
what is right."""

from __future__ import annotations

import ctypes
import gc
import mmap
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import duckdb
import nanoarrow
import pandas
import polars
import pyarrow as pa
import pytest

import tvix_build
from few_messages import messages
from tvix_build import Kind, Schema
from tvix_build._core import arrow, engine
from tvix_build._native import ffi
from tvix_build.spark import _arrow as _spark

TYPES = [pa.binary(), pa.large_binary(), pa.binary_view()]


def note_addresses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Notes where the data are that the engine gets: first address, and the one after the last."""
    seen = []
    run = engine.run

    def noting(kind: Any, some: engine.Messages, *rest: Any) -> Any:
        address = int(ffi.cast("uintptr_t", some.data))
        seen.append((address, address + some.size))
        return run(kind, some, *rest)

    monkeypatch.setattr(engine, "run", noting)
    return seen


def duckdb_column(items: list[bytes]) -> Any:
    table = duckdb.from_arrow(pa.table({"request": pa.array(items, pa.binary())}))
    return table.select("request").to_arrow_table()["request"]


def chunked(items: list[bytes], type: pa.DataType) -> pa.ChunkedArray:
    """Chunks of different sizes, some of them empty."""
    return pa.chunked_array([[], items[:1], [], [], items[1:5], items[5:], []], type)


def sliced(items: list[bytes], type: pa.DataType) -> pa.Array:
    """With an offset that is no multiple of 8, and nulls and bytes around it."""
    return pa.array([None, b"before", *items, None, b"after it all"], type)[2:-2]


def whole(items: list[bytes], type: pa.DataType) -> pa.Array:
    return pa.array(items, type)


def dictionary(
    items: list[bytes], values: pa.DataType, indices: pa.DataType | None = None
) -> pa.DictionaryArray:
    """Sliced, with a value that nobody uses, a null value, nulls around the messages, and indices
    that are not those of `items`."""
    unlike = sorted({b"unused", *items})
    places = [unlike.index(item) for item in items]
    return pa.DictionaryArray.from_arrays(
        pa.array([len(unlike), None, *places, None], indices or pa.int32()),
        pa.array([*unlike, None], values),
    )[2:-1]


INDEXED = [
    (pa.binary(), type)
    for type in (
        *(pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.uint32()),
        *(pa.int64(), pa.uint64()),
    )
]


def extension(storage: pa.Array) -> pa.ExtensionArray:
    return pa.ExtensionArray.from_storage(pa.opaque(storage.type, "request", "tvix"), storage)


INPUTS: dict[str, Callable[[list[bytes]], Any]] = {
    **{
        f"{make.__name__} {type}": partial(make, type=type)
        for make in (whole, sliced, chunked)
        for type in TYPES
    },
    **{
        f"dictionary of {values} by {indices}": partial(dictionary, values=values, indices=indices)
        for values, indices in [*((type, pa.int32()) for type in TYPES), *INDEXED]
    },
    "chunks of a dictionary": lambda items: pa.chunked_array(
        [pa.array(some, pa.binary()).dictionary_encode() for some in (items[:3], items[3:])]
    ),
    "extension": lambda items: extension(pa.array(items)),
    "extension of a dictionary": lambda items: extension(dictionary(items, pa.binary())),
    "dictionary of an extension": lambda items: pa.DictionaryArray.from_arrays(
        pa.array(range(len(items))), extension(pa.array(items))
    ),
    "duckdb": duckdb_column,
    "nanoarrow": lambda items: nanoarrow.Array(items, nanoarrow.binary()),
    # No views: nanoarrow 0.9 corrupts memory with them, by itself.
    "nanoarrow chunks": lambda items: nanoarrow.Array(chunked(items, pa.binary())),
    "pandas": lambda items: pandas.Series(items, dtype=pandas.ArrowDtype(pa.binary())),
    "polars": polars.Series,
    "polars chunks": lambda items: polars.concat(
        [
            polars.Series(items[:3], dtype=polars.Binary),
            polars.Series(items[3:], dtype=polars.Binary),
        ]
    ),
    "polars filtered": lambda items: polars.Series([b"x" * 99, *items, b"y" * 99]).filter(
        polars.Series([False, *(True for _ in items), False])
    ),
}


@pytest.fixture(params=INPUTS)
def make(request: pytest.FixtureRequest) -> Callable[[list[bytes]], Any]:
    return INPUTS[request.param]


def test_arrays_are_checked_like_lists(make: Callable[[list[bytes]], Any]) -> None:
    items = messages() * 3
    assert list(tvix_build.check_batch(make(items))) == list(tvix_build.check_batch(items))


def test_arrays_are_canonicalized_like_lists(make: Callable[[list[bytes]], Any]) -> None:
    items = [messages()[i] for i in (0, 1, 2, 6)]
    expected = list(tvix_build.canonicalize_batch(items))
    assert list(tvix_build.canonicalize_batch(make(items))) == expected
    with pytest.raises(tvix_build.ValidationError, match="message 4: command_args: required"):
        tvix_build.canonicalize_batch(make([*items, b""]))


def test_pandas_array_is_a_list() -> None:
    # It offers no Arrow, unlike a Series of it.
    items = messages()
    array = pandas.array(items, dtype=pandas.ArrowDtype(pa.binary()))
    assert list(tvix_build.check_batch(array)) == list(tvix_build.check_batch(items))


def test_kind_is_said(make: Callable[[list[bytes]], Any]) -> None:
    report = tvix_build.check_batch(make([b"", b"\x0a"]), kind="directory")
    assert list(report.valid) == [True, False]


@pytest.mark.parametrize("type", TYPES, ids=str)
def test_no_messages(type: pa.DataType) -> None:
    full = pa.array(messages(), type)
    for empty in (pa.array([], type), full[3:3], full[len(full) :], pa.chunked_array([], type)):
        assert len(tvix_build.check_batch(empty)) == 0
        assert len(tvix_build.canonicalize_batch(empty)) == 0


def test_pieces(make: Callable[[list[bytes]], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "_PIECE", 3)
    items = messages() * 2
    assert list(tvix_build.check_batch(make(items))) == list(tvix_build.check_batch(items))
    with pytest.raises(ValueError, match="message 7: expected a message, found null"):
        tvix_build.check_batch(pa.array([*items[:7], None, b"", None]))


@pytest.mark.slow
def test_pieces_keep_what_they_refer_to(
    make: Callable[[list[bytes]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "_PIECE", 3)
    items = messages() * 2
    column = make(items)
    if not hasattr(column, "__arrow_c_stream__") and not hasattr(column, "__arrow_c_array__"):
        pytest.skip("a Series of pandas before 3 is no Arrow array but a sequence of bytes")
    pieces = list(arrow.ranges(column))
    del column
    gc.collect()
    found = [
        bytes(memoryview(data)[begin:end])
        for data, begins, ends in pieces
        for begin, end in zip(begins, ends, strict=True)
    ]
    assert found == items


@pytest.mark.slow
def test_threads(make: Callable[[list[bytes]], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "_PIECE", 7)
    items = messages() * 30
    for threads in (1, 2, 5):
        report = tvix_build.check_batch(make(items), threads=threads)
        assert list(report) == list(tvix_build.check_batch(items))


def test_messages_far_apart_are_checked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = note_addresses(monkeypatch)
    memory = mmap.mmap(-1, 1 << 30)  # never touched
    places = list(range(0, 1 << 30, 10 << 20))
    report = tvix_build.check_batch(memoryview(memory), kind="directory", offsets=(places, places))
    assert all(report.valid)
    assert len(calls) == 1


@pytest.mark.parametrize("type", TYPES[:2], ids=str)
def test_nothing_is_copied(type: pa.DataType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = note_addresses(monkeypatch)
    items = messages()
    data = pa.array(items, type).buffers()[2]
    array = pa.Array.from_buffers(type, len(items), [*pa.array(items, type).buffers()[:2], data])
    tvix_build.check_batch(array)
    tvix_build.check_batch(pa.chunked_array([array]))
    assert seen[0] == (data.address, data.address + sum(map(len, items)))
    assert data.address in (first for first, _ in seen[1:])


Place: TypeAlias = bytes | tuple[int, int, int]
"""What a view says: the bytes, or their size, buffer and offset."""


def views_of(places: list[Place], buffers: list[Any]) -> pa.Array:
    """A binary_view array from its views."""
    views = bytearray()
    for place in places:
        if isinstance(place, bytes):
            views += struct.pack("<i12s", len(place), place)
        else:
            views += struct.pack("<i4sii", place[0], b"pre.", place[1], place[2])
    all_buffers = [None, pa.py_buffer(bytes(views)), *map(pa.py_buffer, buffers)]
    return pa.Array.from_buffers(pa.binary_view(), len(places), all_buffers)


def test_views_into_many_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, inline, d = messages()[0], messages()[2], messages()[1], messages()[4]
    padded = [b"..." + a + b"..", b"", b + d + b"unused", b"unused"]
    places: list[Place] = [
        (len(b), 2, 0),
        (len(a), 0, 3),
        inline,
        (len(d), 2, len(b)),
        b"",
        (len(b), 2, 0),  # once more
        (len(a), 0, 3),
    ]
    expected = [b, a, inline, d, b"", b, a]
    array = views_of(places, padded)
    assert array.to_pylist() == expected
    seen = note_addresses(monkeypatch)
    assert list(tvix_build.check_batch(array)) == list(tvix_build.check_batch(expected))
    assert list(tvix_build.check_batch(array[2:5])) == list(tvix_build.check_batch(expected[2:5]))
    for buffer in array.buffers()[1:]:
        first, end = seen[0]
        assert buffer.size == 0 or first <= buffer.address <= end - buffer.size
    assert list(tvix_build.canonicalize_batch(array[:3])) == [
        *tvix_build.canonicalize_batch([b, a, inline])
    ]


class GuardedPages:
    """Buffers that each end where memory ends: reading on is a crash."""

    def __init__(self, contents: list[bytes]) -> None:
        page = mmap.PAGESIZE
        size = len(contents) * 2 * page
        self.memory = mmap.mmap(-1, size)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.buffers = []
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for i, content in enumerate(contents):
            guard = (2 * i + 1) * page
            self.memory[guard - len(content) : guard] = content
            address = start + guard - len(content)
            self.buffers.append(pa.foreign_buffer(address, len(content), self))
            assert protect(ctypes.c_void_p(start + guard), ctypes.c_size_t(page), 0) == 0


def test_nothing_is_read_between_buffers() -> None:
    texts = [message for message in messages() if len(message) > 12] * 40
    pages = GuardedPages(texts)
    places: list[Place] = [(len(text), i, 0) for i, text in enumerate(texts)]
    array = views_of([*places, *reversed(places)], pages.buffers)
    expected = list(tvix_build.check_batch([*texts, *reversed(texts)]))
    assert list(tvix_build.check_batch(array)) == expected


@pytest.mark.parametrize("type", TYPES, ids=str)
def test_nulls(type: pa.DataType) -> None:
    good = messages()[0]
    array = pa.array([None, *[good] * 10, None, None], type)
    for items, index in [
        (array, 0),
        (array[1:], 10),
        (pa.chunked_array([array[1:5], array[1:1], array[8:]]), 7),
    ]:
        for function in (tvix_build.check_batch, tvix_build.canonicalize_batch):
            with pytest.raises(ValueError, match=f"^message {index}: .* found null$"):
                function(items)
    assert all(tvix_build.check_batch(array[1:11]).valid)


def test_nulls_of_a_dictionary() -> None:
    values = pa.array([messages()[0], None, b""])
    for places, index in [([0, 2, None], 2), ([0, 1, 2], 1), ([1], 0), ([2] * 9 + [1], 9)]:
        array = pa.DictionaryArray.from_arrays(pa.array(places), values)
        for items in (array, pa.chunked_array([array])):
            with pytest.raises(ValueError, match=f"^message {index}: .* found null$"):
                tvix_build.check_batch(items)
    later = pa.DictionaryArray.from_arrays(pa.array([0, 1]), values)
    with pytest.raises(ValueError, match=r"^message 3: .* found null$"):
        tvix_build.check_batch(pa.chunked_array([later[:1], later[:1], later]))


def test_a_null_view_of_a_dictionary_may_be_anything() -> None:
    place: Place = (1 << 30, 7, -1)
    views = views_of([messages()[1], place], [])
    buffers = [pa.py_buffer(b"\x01"), *views.buffers()[1:]]
    values = pa.Array.from_buffers(pa.binary_view(), 2, buffers, null_count=1)
    array = pa.DictionaryArray.from_arrays(pa.array([0, 0]), values)
    assert list(tvix_build.check_batch(array)) == [tvix_build.check(messages()[1])] * 2


@pytest.mark.parametrize("index", [-1, 3, 127, -128])
def test_indices_that_lie(index: int) -> None:
    indices = pa.array([0, 1, index], pa.int8())
    array = pa.DictionaryArray.from_arrays(indices, pa.array([b"", b"", b""]), safe=False)
    with pytest.raises(ValueError, match=r"^message 2: the message is not within"):
        tvix_build.check_batch(array)


def test_values_of_a_dictionary_that_lie() -> None:
    values = by_offsets(pa.binary(), 0, 9, 5)
    array = pa.DictionaryArray.from_arrays(pa.array([0, 0]), values, safe=False)
    for items in (array, pa.chunked_array([array])):
        with pytest.raises(ValueError, match=r"^value 0 of the dictionary of message 0: the"):
            tvix_build.check_batch(items)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_null_type_is_a_column_of_nulls(count: int) -> None:
    nulls = pa.nulls(count)
    columns = [
        *(nulls, pa.chunked_array([nulls]), extension(nulls), polars.Series([None] * count)),
        pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int8()), pa.nulls(1)),
        pandas.Series([None] * count, dtype=pandas.ArrowDtype(pa.null())),
    ]
    for column in columns:
        if not hasattr(column, "__arrow_c_stream__") and not hasattr(column, "__arrow_c_array__"):
            continue  # A Series of pandas before 3 is no Arrow array.
        for function in (tvix_build.check_batch, tvix_build.canonicalize_batch):
            if count:
                with pytest.raises(ValueError, match=r"^message 0: .* found null$"):
                    function(column)
            else:
                assert len(function(column)) == 0
    if count:
        with pytest.raises(ValueError, match=r"^message 0: .* found null$"):
            tvix_build.check_batch(pa.chunked_array([pa.nulls(0), nulls]))


def test_spark_takes_the_null_type() -> None:
    """What a task does, without Spark."""
    for nulls in (pa.nulls(3), pa.nulls(3, pa.binary())):
        batch = pa.record_batch({"0": nulls})
        (found,) = _spark.results(iter([batch]), 0, Kind.BUILD_REQUEST, Schema.TVIX_BUILD_V1)
        assert found.column("valid").to_pylist() == [False] * 3
        assert found.column("digest").null_count == 3
        (pairs,) = _spark.names(iter([batch]), Kind.BUILD_REQUEST, Schema.TVIX_BUILD_V1)
        assert pairs.to_pylist() == [{"digest": None, "encoding": None}] * 3


@pytest.mark.parametrize(
    ("items", "found"),
    [
        (pa.array(["text"]), "'u'"),
        (pa.array([1]), "'l'"),
        (pa.array([b"abc"], pa.binary(3)), "'w:3'"),
        (pa.array([[b"abc"]]), r"'\+l'"),
        (pa.array(["text"]).dictionary_encode(), "a dictionary of format 'u'"),
        (pa.array([b"abc"], pa.binary(3)).dictionary_encode(), "a dictionary of format 'w:3'"),
        (pa.chunked_array([["text"]]), "'u'"),
        (pa.array([{"request": b""}]), r"a struct or table, format '\+s'"),
        (pa.table({"request": [b""]}), r"a struct or table, format '\+s'"),
        (pa.record_batch({"request": [b""]}), r"a struct or table, format '\+s'"),
        (polars.DataFrame({"request": [b""]}), r"a struct or table, format '\+s'"),
        (polars.Series(["text"]), "'vu'"),
        (tvix_build.check_batch([]), r"a struct or table, format '\+s'"),
    ],
    ids=str,
)
def test_other_types_are_refused(items: Any, found: str) -> None:
    expected = (
        "expected an Arrow array of binary, large_binary, binary_view or a dictionary of these"
    )
    with pytest.raises(TypeError, match=f"^{expected}, found .*{found}$"):
        tvix_build.check_batch(items)


def by_offsets(type: pa.DataType, *offsets: int) -> pa.Array:
    packed = struct.pack(f"<{len(offsets)}{'q' if type == pa.large_binary() else 'i'}", *offsets)
    memory = bytearray(len(packed))
    buffers = [None, pa.py_buffer(memory), pa.py_buffer(bytes(50))]
    array = pa.Array.from_buffers(type, len(offsets) - 1, buffers)
    memory[:] = packed  # behind the back of pyarrow, which checks some of it
    return array


@pytest.mark.parametrize("type", TYPES[:2], ids=str)
@pytest.mark.parametrize(
    ("offsets", "bad"),
    [
        ((0, 1, 9, 5), 1),
        ((0, 5, 3, 9), 1),
        ((0, -1, 9), 0),
        ((-1, 1, 9), 0),
        ((0, 1, -9), 0),
        ((0, 0, -9), 1),
        ((60, 0, 20), 0),
    ],
)
def test_offsets_that_lie(type: pa.DataType, offsets: tuple[int, ...], bad: int) -> None:
    with pytest.raises(ValueError, match=f"^message {bad}: the message is not within"):
        tvix_build.check_batch(by_offsets(type, *offsets))


@pytest.mark.parametrize(
    "place",
    [(20, 0, 31), (20, 0, -1), (20, 1, 0), (20, -1, 0), (-1, 0, 0), (0x7FFFFFFF, 0, 0x7FFFFFFF)],
)
def test_views_that_lie(place: tuple[int, int, int]) -> None:
    array = views_of([(20, 0, 30), b"", place], [bytes(50)])
    with pytest.raises(ValueError, match=r"^message 2: the message is not within"):
        tvix_build.check_batch(array)


def misaligned(buffer: pa.Buffer | None) -> pa.Buffer | None:
    return buffer and pa.py_buffer(b"." + buffer.to_pybytes()).slice(1)


@pytest.mark.parametrize("type", TYPES, ids=str)
def test_buffers_that_are_not_aligned(type: pa.DataType) -> None:
    items = messages()
    array = pa.array(items, type)
    moved = pa.Array.from_buffers(type, len(items), list(map(misaligned, array.buffers())))
    assert list(tvix_build.check_batch(moved)) == list(tvix_build.check_batch(items))


class CStream(ctypes.Structure):
    """struct ArrowArrayStream."""

    _fields_ = (
        ("get_schema", ctypes.c_void_p),
        ("get_next", ctypes.c_void_p),
        ("get_last_error", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


class Wrapped:
    """A stream whose capsule a test has in its hands."""

    def __init__(self, items: Any) -> None:
        self.capsule = items.__arrow_c_stream__()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.capsule

    @property
    def stream(self) -> CStream:
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype = ctypes.c_void_p
        pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
        return CStream.from_address(pointer(self.capsule, b"arrow_array_stream"))


@pytest.mark.parametrize("call", ["get_schema", "get_next"])
def test_stream_that_fails(call: str) -> None:
    wrapped = Wrapped(pa.chunked_array([messages()]))
    real = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(
        getattr(wrapped.stream, call)
    )

    def fails(stream: int, out: int) -> int:
        """Does its work, and says that it failed."""
        real(stream, out)
        return 5

    fail = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(fails)
    setattr(wrapped.stream, call, ctypes.cast(fail, ctypes.c_void_p).value)
    with pytest.raises(OSError, match="the Arrow stream failed") as caught:
        tvix_build.check_batch(wrapped)
    assert caught.value.errno == 5


def test_stream_that_was_consumed() -> None:
    wrapped = Wrapped(pa.chunked_array([messages()]))
    pa.chunked_array(wrapped)
    with pytest.raises(ValueError, match="ArrowArrayStream has already been consumed"):
        tvix_build.check_batch(wrapped)


def test_what_is_no_capsule() -> None:
    class Odd:
        def __init__(self, *capsules: Any) -> None:
            self.capsules = capsules

        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            return self.capsules

    schema, array = pa.array([b""]).__arrow_c_array__()
    for capsules in [(1, 2), (array, schema), (schema, None)]:
        with pytest.raises(ValueError, match="PyCapsule"):
            tvix_build.check_batch(Odd(*capsules))
    assert len(tvix_build.check_batch(Odd(schema, array))) == 1


def test_errors_of_the_producer_arrive() -> None:
    class Failing:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            raise RuntimeError("no data today")

    with pytest.raises(RuntimeError, match="no data today"):
        tvix_build.check_batch(Failing())
