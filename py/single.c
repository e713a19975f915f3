// SPDX-License-Identifier: MIT
//
// Checks a single small message without the overhead of a call through cffi:
// a Python function with its own context. Included in the extension module like
// capsules.c.

/* cffi: begin */

// Messages of at most this size are checked while the GIL is held, which takes
// some microseconds.
#define TVIXB_SINGLE_SIZE 16384

// Returns a new Python function with one argument, a message of the kind. It
// returns the digest, a bytes object, if the argument is a bytes object of at
// most TVIXB_SINGLE_SIZE bytes with a canonical message, else None. It may be
// called from any thread. Returns NULL with an exception set if that fails.
//
// Call this with ctypes, which holds the GIL. `void*` is PyObject*.
void* tvixb_single_digest(const tvixb_kind* kind);

/* cffi: end */

typedef struct single {
  const tvixb_kind* kind;
  tvixb_context* context;  // protected by the GIL or by the capsule's lock
} single;

#ifdef Py_GIL_DISABLED
#define BEGIN_LOCKED Py_BEGIN_CRITICAL_SECTION
#define END_LOCKED Py_END_CRITICAL_SECTION
#else
#define BEGIN_LOCKED(object)
#define END_LOCKED()
#endif

#define SINGLE_NAME "tvix_build.single"

static PyObject* single_call(PyObject* self, PyObject* message) {
  if (!PyBytes_CheckExact(message)) Py_RETURN_NONE;
  uint64_t begin = 0, end = (uint64_t)PyBytes_Size(message);
  if (end > TVIXB_SINGLE_SIZE) Py_RETURN_NONE;
  single* single = PyCapsule_GetPointer(self, SINGLE_NAME);
  if (!single) return NULL;
  const uint8_t* data = (const uint8_t*)PyBytes_AsString(message);
  uint8_t verdict, digest[TVIXB_DIGEST_SIZE];
  const tvixb_results results = {.verdicts = &verdict, .digests = digest};
  tvixb_status status;
  BEGIN_LOCKED(self);
  status = tvixb_check(single->context, single->kind, data, (size_t)end, &begin,
                       &end, 1, &results);
  END_LOCKED();
  if (status != TVIXB_OK) return PyErr_NoMemory();
  if (verdict != TVIXB_CANONICAL) Py_RETURN_NONE;
  return PyBytes_FromStringAndSize((const char*)digest, TVIXB_DIGEST_SIZE);
}

static void single_free(PyObject* capsule) {
  single* single = PyCapsule_GetPointer(capsule, SINGLE_NAME);
  tvixb_context_free(single->context);
  free(single);
}

static PyMethodDef single_method = {"digest_if_canonical", single_call, METH_O,
                                    NULL};

void* tvixb_single_digest(const tvixb_kind* kind) {
  single* new = malloc(sizeof *new);
  if (!new) return PyErr_NoMemory();
  *new = (single){kind, tvixb_context_new()};
  PyObject* capsule = new->context
                          ? PyCapsule_New(new, SINGLE_NAME, single_free)
                          : PyErr_NoMemory();
  if (!capsule) {
    tvixb_context_free(new->context);
    free(new);
    return NULL;
  }
  PyObject* function = PyCFunction_NewEx(&single_method, capsule, NULL);
  Py_DECREF(capsule);
  return function;
}
