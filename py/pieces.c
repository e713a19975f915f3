// SPDX-License-Identifier: MIT
//
// Cuts batches in pieces: so small that threads end together and that an
// interrupt is noticed soon, so large that a call of the engine costs nothing
// beside its work. Not compiled by itself, as capsules.c.

#include <stdbool.h>

/* cffi: begin */

// A piece ends after so many messages or bytes.
#define TVIXB_PIECE_COUNT 16384
#define TVIXB_PIECE_SIZE 1048576

// How many of the first of n ranges, n > 0, make a piece. The ranges may be
// bad.
size_t tvixb_piece_of_ranges(const uint64_t* begins, const uint64_t* ends,
                             size_t n);

// A piece of bytes objects: message i is data[begins[i] .. ends[i]). The data
// are everything from the first to the last of them, wherever they lie.
typedef struct tvixb_piece {
  const uint8_t* data;
  size_t size;
  const uint64_t* begins;
  const uint64_t* ends;
  size_t number;
  bool last;  // there are no more items
} tvixb_piece;

// Takes as many items as make a piece: those of a list from item `first` on, or
// the next ones of an iterator, where `first` came before. An item that is not
// exactly bytes is replaced by convert(item, index), which is bytes. Returns a
// list of the bytes objects and a bytes object that holds a tvixb_piece, which
// lasts as long as both.
//
// To be called with the GIL held, by ctypes: pointers are to objects.
void* tvixb_piece_of_items(void* source, ptrdiff_t first, void* convert);

/* cffi: end */

// How many items early the objects of a list are fetched; they lie anywhere.
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

// An item of a list, or the next one of an iterator; NULL if there is none.
static PyObject* next_item(PyObject* source, Py_ssize_t index) {
  if (!PyList_CheckExact(source)) return PyIter_Next(source);
  Py_ssize_t left = PyList_Size(source) - index;
  if (left <= 0) return NULL;
  if (left > PREFETCH_DISTANCE) {
    __builtin_prefetch(PyList_GetItem(source, index + PREFETCH_DISTANCE));
  }
  PyObject* item = PyList_GetItem(source, index);
  Py_INCREF(item);
  return item;
}

// A list of as many items as make a piece; *last: there are no more.
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

// As in arrow_input.c: the data reach over everything between the objects.
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
