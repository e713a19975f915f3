// SPDX-License-Identifier: MIT
//
// Checks a single small message without the overhead of a call through cffi:
// Python functions with their own context. Included in the extension module
// like capsules.c.

/* cffi: begin */

// Messages of at most this size are checked while the GIL is held, which takes
// some microseconds.
#define TVIXB_SINGLE_SIZE 16384

// Returns a tuple of two new Python functions, `digest` and `canonical`, with
// one argument, a message of the kind. They return None if the argument is not
// a bytes object of at most TVIXB_SINGLE_SIZE bytes. `digest` returns the
// digest, a bytes object, if the message is canonical, and `canonical` its
// canonical encoding if there is one. Otherwise they return a tuple: the digest
// or None, a tuple (code, path, text) for each violation, and the total number
// of violations. They may be called from any thread. Returns NULL with an
// exception set if that fails.
//
// Call this with ctypes, which holds the GIL. `void*` is PyObject*.
void* tvixb_single_new(const tvixb_kind* kind);

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

#define TEXT_SIZE 1024  // limit of a path and of a text

static PyObject* violation_tuple(const tvixb_kind* kind,
                                 const tvixb_violation* violation) {
  char path[TEXT_SIZE], text[TEXT_SIZE];
  tvixb_violation_path(kind, violation, path, sizeof path);
  tvixb_violation_message(kind, violation, text, sizeof text);
  return Py_BuildValue("(Bss)", violation->code, path, text);
}

static PyObject* violations_tuple(const single* single) {
  size_t count;
  const tvixb_violation* all = tvixb_violations(single->context, &count);
  PyObject* tuple = PyTuple_New((Py_ssize_t)count);
  for (size_t i = 0; tuple && i < count; i++) {
    PyObject* item = violation_tuple(single->kind, &all[i]);
    if (!item || PyTuple_SetItem(tuple, (Py_ssize_t)i, item) < 0) {
      Py_DECREF(tuple);
      return NULL;
    }
  }
  return tuple;
}

// Returns the details of the last check. Its digest is NULL for a message
// without one.
static PyObject* single_details(const single* single, const uint8_t* digest) {
  PyObject* violations = violations_tuple(single);
  if (!violations) return NULL;
  size_t count;
  const tvixb_violations_of* found =
      tvixb_violations_by_message(single->context, &count);
  unsigned long long total = count ? found->total : 0;
  if (!digest) return Py_BuildValue("(ONK)", Py_None, violations, total);
  PyObject* bytes =
      PyBytes_FromStringAndSize((const char*)digest, TVIXB_DIGEST_SIZE);
  if (bytes) return Py_BuildValue("(NNK)", bytes, violations, total);
  Py_DECREF(violations);
  return NULL;
}

static PyObject* check_digest(const single* single, const uint8_t* data,
                              uint64_t size) {
  const uint64_t begin = 0;
  uint8_t verdict, digest[TVIXB_DIGEST_SIZE];
  const tvixb_results results = {.verdicts = &verdict, .digests = digest};
  if (tvixb_check(single->context, single->kind, data, (size_t)size, &begin,
                  &size, 1, &results) != TVIXB_OK) {
    return PyErr_NoMemory();
  }
  if (verdict == TVIXB_CANONICAL) {
    return PyBytes_FromStringAndSize((const char*)digest, sizeof digest);
  }
  return single_details(single, verdict <= TVIXB_UNSORTED ? digest : NULL);
}

static PyObject* check_canonical(const single* single, const uint8_t* data,
                                 uint64_t size, PyObject* message) {
  const uint64_t begin = 0;
  uint64_t end;
  uint8_t verdict, encoded[2 * TVIXB_SINGLE_SIZE];  // tvixb_encoded_room
  tvixb_encodings encodings = {encoded, sizeof encoded, &end, 0};
  const tvixb_results results = {.verdicts = &verdict, .encodings = &encodings};
  if (tvixb_check(single->context, single->kind, data, (size_t)size, &begin,
                  &size, 1, &results) != TVIXB_OK) {
    return PyErr_NoMemory();
  }
  if (verdict > TVIXB_UNSORTED) return single_details(single, NULL);
  if (verdict == TVIXB_CANONICAL) {
    Py_INCREF(message);
    return message;
  }
  return PyBytes_FromStringAndSize((const char*)encoded, (Py_ssize_t)end);
}

static PyObject* single_call(PyObject* self, PyObject* message,
                             bool canonical) {
  if (!PyBytes_CheckExact(message)) Py_RETURN_NONE;
  uint64_t size = (uint64_t)PyBytes_Size(message);
  if (size > TVIXB_SINGLE_SIZE) Py_RETURN_NONE;
  const single* single = PyCapsule_GetPointer(self, SINGLE_NAME);
  if (!single) return NULL;
  const uint8_t* data = (const uint8_t*)PyBytes_AsString(message);
  PyObject* result;
  BEGIN_LOCKED(self);
  result = canonical ? check_canonical(single, data, size, message)
                     : check_digest(single, data, size);
  END_LOCKED();
  return result;
}

static PyObject* single_digest(PyObject* self, PyObject* message) {
  return single_call(self, message, false);
}

static PyObject* single_canonical(PyObject* self, PyObject* message) {
  return single_call(self, message, true);
}

static void single_free(PyObject* capsule) {
  single* single = PyCapsule_GetPointer(capsule, SINGLE_NAME);
  tvixb_context_free(single->context);
  free(single);
}

static PyMethodDef single_methods[] = {
    {"digest", single_digest, METH_O, NULL},
    {"canonical", single_canonical, METH_O, NULL},
};

void* tvixb_single_new(const tvixb_kind* kind) {
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
  PyObject* functions = Py_BuildValue(
      "(NN)", PyCFunction_NewEx(&single_methods[0], capsule, NULL),
      PyCFunction_NewEx(&single_methods[1], capsule, NULL));
  Py_DECREF(capsule);
  return functions;
}
