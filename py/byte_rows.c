// SPDX-License-Identifier: MIT
//
// A type whose objects export n x 32 bytes as a read-only buffer of two
// dimensions. In Python, only version 3.12 and newer can define one. Not
// compiled by itself, as capsules.c.

#include <stdbool.h>

/* cffi: begin */

// Both are to be called with the GIL held, by ctypes: pointers are to objects.
// They return a new reference, or NULL with an exception set.

// The type, to be derived from. An object that Python code makes has no rows.
void* tvixb_byte_rows_type(void);

// A new object of a type that is derived from it, with so many rows of
// TVIXB_DIGEST_SIZE bytes at `data`, which `owner` keeps.
void* tvixb_byte_rows_new(void* type, const void* data, ptrdiff_t rows,
                          void* owner);

/* cffi: end */

// Py_buffer and the numbers that belong to it: the same in every version, but
// in the headers for the stable ABI only since Python 3.11.
typedef struct byte_rows_view {
  void* buf;
  PyObject* obj;
  Py_ssize_t len;
  Py_ssize_t itemsize;
  int readonly;
  int ndim;
  char* format;
  Py_ssize_t* shape;
  Py_ssize_t* strides;
  Py_ssize_t* suboffsets;
  void* internal;
} byte_rows_view;

#define GETBUFFER_SLOT 1
#define WANTS_WRITABLE 0x1
#define WANTS_FORMAT 0x4
#define WANTS_SHAPE 0x8
#define WANTS_STRIDES 0x10
#define WANTS_FORTRAN 0x40

typedef struct byte_rows {
  PyObject ob_base;
  const void* data;
  PyObject* owner;
  Py_ssize_t shape[2];
  Py_ssize_t strides[2];
} byte_rows;

static int byte_rows_get(PyObject* self, byte_rows_view* view, int flags) {
  byte_rows* rows = (byte_rows*)self;
  view->obj = NULL;
  if (flags & (WANTS_WRITABLE | WANTS_FORTRAN)) {
    PyErr_SetString(PyExc_BufferError,
                    "expected a request for a read-only buffer in C order, "
                    "found one for another");
    return -1;
  }
  rows->shape[1] = rows->strides[0] = TVIXB_DIGEST_SIZE;
  rows->strides[1] = 1;
  static char format[] = "B";
  bool has_shape = flags & WANTS_SHAPE;
  *view = (byte_rows_view){
      .buf = (void*)(uintptr_t)rows->data,
      .obj = self,
      .len = rows->shape[0] * TVIXB_DIGEST_SIZE,
      .itemsize = 1,
      .readonly = 1,
      .ndim = has_shape ? 2 : 1,
      .format = flags & WANTS_FORMAT ? format : NULL,
      .shape = has_shape ? rows->shape : NULL,
      .strides = flags & WANTS_STRIDES ? rows->strides : NULL,
  };
  Py_INCREF(self);
  return 0;
}

static void byte_rows_free(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  Py_XDECREF(((byte_rows*)self)->owner);
  // ISO C has no cast between pointers to data and to functions.
  union {
    void* slot;
    freefunc call;
  } release = {.slot = PyType_GetSlot(type, Py_tp_free)};
  release.call(self);
  Py_DECREF(type);
}

void* tvixb_byte_rows_type(void) {
  union {
    int (*get)(PyObject*, byte_rows_view*, int);
    destructor free;
    void* slot;
  } get = {.get = byte_rows_get}, release = {.free = byte_rows_free};
  PyType_Slot slots[] = {
      {GETBUFFER_SLOT, get.slot},
      {Py_tp_dealloc, release.slot},
      {0, NULL},
  };
  PyType_Spec spec = {
      .name = "tvix_build._native.ByteRows",
      .basicsize = sizeof(byte_rows),
      .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
      .slots = slots,
  };
  return PyType_FromSpec(&spec);
}

void* tvixb_byte_rows_new(void* type, const void* data, ptrdiff_t rows,
                          void* owner) {
  byte_rows* made = (byte_rows*)(void*)PyType_GenericAlloc(type, 0);
  if (!made) return NULL;
  Py_INCREF(owner);
  made->owner = owner;
  made->data = data;
  made->shape[0] = rows;
  return made;
}
