// SPDX-License-Identifier: MIT
//
// Divides batches into pieces. A piece is so small that threads finish at about
// the same time and interrupts are handled soon, and so large that the overhead
// of a call is negligible. Included in the extension module like capsules.c.

#include <stdbool.h>

/* cffi: begin */

// A piece ends after this many messages or bytes.
#define TVIXB_PIECE_COUNT 16384
#define TVIXB_PIECE_SIZE 1048576

// Returns how many of the n ranges, n > 0, belong to the first piece: 1 to n.
// The ranges may be invalid.
size_t tvixb_piece_of_ranges(const uint64_t* begins, const uint64_t* ends,
                             size_t n);

// A piece of bytes objects. Message i is data[begins[i] .. ends[i]). `data`
// reaches from the object with the lowest address to the end of that with the
// highest; memory between objects must not be read.
typedef struct tvixb_piece {
  const uint8_t* data;
  size_t size;
  const uint64_t* begins;
  const uint64_t* ends;
  size_t number;
  bool last;  // there are no more items after this piece
} tvixb_piece;

// Takes the items of one piece: those of a list from item `first` on, or the
// next items of an iterator that has yielded `first` items. Replaces an item
// that is not exactly of type bytes by convert(item, index), which must return
// bytes. Returns a tuple of a list of the bytes objects and a bytes object with
// a tvixb_piece, which is valid as long as both exist; NULL with an exception
// set if that fails.
//
// Call this with ctypes, which holds the GIL. `void*` is PyObject*.
void* tvixb_piece_of_items(void* source, ptrdiff_t first, void* convert);

/* cffi: end */

// Objects of a list are at random addresses, so they are prefetched this many
// items ahead.
#define PREFETCH_DISTANCE 16

size_t tvixb_piece_of_ranges(const uint64_t* begins, const uint64_t* ends,
                             size_t n) {
  if (n > TVIXB_PIECE_COUNT) n = TVIXB_PIECE_COUNT;
  uint64_t left = TVIXB_PIECE_SIZE;
  for (size_t i = 0; i < n; i++) {
    uint64_t size = ends[i] - begins[i];
    if (size >= left) return i + 1;
    left -= size;
  }
  return n;
}

// Returns an item of a list or the next item of an iterator; NULL if there is
// none.
static PyObject* next_item(PyObject* source, Py_ssize_t index) {
  if (!PyList_CheckExact(source)) return PyIter_Next(source);
  Py_ssize_t left = PyList_Size(source) - index;
  if (left <= 0) return NULL;
#ifdef Py_GIL_DISABLED
  return PyList_GetItemRef(source, index);
#else
  if (left > PREFETCH_DISTANCE) {
    __builtin_prefetch(PyList_GetItem(source, index + PREFETCH_DISTANCE));
  }
  PyObject* item = PyList_GetItem(source, index);
  Py_INCREF(item);
  return item;
#endif
}

// Returns a list of the items of one piece. Sets *last if there are no more
// items.
static PyObject* take_items(PyObject* source, Py_ssize_t first,
                            PyObject* convert, bool* last) {
  PyObject* items = PyList_New(0);
  if (!items) return NULL;
  Py_ssize_t left = TVIXB_PIECE_SIZE;
  for (Py_ssize_t i = 0; i < TVIXB_PIECE_COUNT && left > 0; i++) {
    PyObject* item = next_item(source, first + i);
    if (!item) {
      *last = true;
      break;
    }
    if (!PyBytes_CheckExact(item)) {
      PyObject* bytes = PyObject_CallFunction(convert, "On", item, first + i);
      Py_DECREF(item);
      if (!bytes) break;
      item = bytes;
    }
    Py_ssize_t size = PyBytes_Size(item);
    int error = size < 0 ? -1 : PyList_Append(items, item);
    Py_DECREF(item);
    if (error) break;
    left = size < left ? left - size : 0;
  }
  if (PyErr_Occurred()) Py_CLEAR(items);
  return items;
}

// Returns a bytes object with the tvixb_piece of the items and its offsets. As
// in arrow_input.c, offsets from one object to another need a flat address
// space.
static PyObject* place_items(PyObject* items, bool last_piece) {
  size_t count = (size_t)PyList_Size(items);
  tvixb_piece piece = {.number = count, .last = last_piece};
  PyObject* memory = PyBytes_FromStringAndSize(
      NULL, (Py_ssize_t)(sizeof piece + 2 * count * sizeof(uint64_t)));
  if (!memory) return NULL;
  uint64_t* begins =
      (uint64_t*)(void*)(PyBytes_AsString(memory) + sizeof piece);
  uint64_t* ends = begins + count;
  uint64_t first = UINT64_MAX, last = 0;
  for (size_t i = 0; i < count; i++) {
    PyObject* item = PyList_GetItem(items, (Py_ssize_t)i);
    begins[i] = (uint64_t)(uintptr_t)PyBytes_AsString(item);
    ends[i] = begins[i] + (uint64_t)PyBytes_Size(item);
    if (begins[i] < first) first = begins[i];
    if (ends[i] > last) last = ends[i];
  }
  for (size_t i = 0; i < count; i++) {
    begins[i] -= first;
    ends[i] -= first;
  }
  if (count) {
    piece.data = (const uint8_t*)(uintptr_t)first;
    piece.size = (size_t)(last - first);
  }
  piece.begins = begins;
  piece.ends = ends;
  memcpy(PyBytes_AsString(memory), &piece, sizeof piece);
  return memory;
}

void* tvixb_piece_of_items(void* source, ptrdiff_t first, void* convert) {
  bool last = false;
  PyObject* items = take_items(source, first, convert, &last);
  if (!items) return NULL;
  PyObject* memory = place_items(items, last);
  PyObject* both = memory ? PyTuple_Pack(2, items, memory) : NULL;
  Py_DECREF(items);
  Py_XDECREF(memory);
  return both;
}
