// SPDX-License-Identifier: MIT
//
// A type whose objects export n x 32 bytes as a read-only buffer with two
// dimensions. Python code can define such a type only since version 3.12.
// Included in the extension module like capsules.c.

#include <stdbool.h>

/* cffi: begin */

// Call both functions with ctypes, which holds the GIL. `void*` is PyObject*.
// They return a new reference, or NULL with an exception set.

// Returns the type, as a base class. An object that Python code makes has no
// rows.
void* tvixb_byte_rows_type(void);

// Returns a new object of a derived type, with `rows` rows of TVIXB_DIGEST_SIZE
// bytes at `data`. The object keeps a reference to `owner`, which must keep
// `data` alive.
void* tvixb_byte_rows_new(void* type, const void* data, ptrdiff_t rows,
                          void* owner);

/* cffi: end */

// Py_buffer and its constants. They are the same in all versions of Python, but
// the headers for the stable ABI have them only since 3.11.
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
                    "found one for a writable buffer or for Fortran order");
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
  // ISO C has no cast between data pointers and function pointers.
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
