// SPDX-License-Identifier: MIT
//
// The C part of PyCapsules with Arrow structs: memory for a struct, and a
// destructor that releases a struct that nobody has consumed. Not compiled by
// itself: build_native.py copies this file into the extension module, which
// includes Python.h and arrow.h.

/* cffi: begin */

// Return a struct that is marked as released, for a capsule with the destructor
// below; NULL if the allocation fails.
struct ArrowSchema* tvixb_capsule_new_schema(void);
struct ArrowArray* tvixb_capsule_new_array(void);
struct ArrowArrayStream* tvixb_capsule_new_stream(void);

// Destructors of capsules: release the struct, if it is not marked as released,
// and free it. The argument is the PyCapsule.
void tvixb_capsule_free_schema(void* capsule);
void tvixb_capsule_free_array(void* capsule);
void tvixb_capsule_free_stream(void* capsule);

// The names of the capsules. A name must outlive its capsules.
extern const char* const tvixb_capsule_schema;
extern const char* const tvixb_capsule_array;
extern const char* const tvixb_capsule_stream;

/* cffi: end */

const char* const tvixb_capsule_schema = "arrow_schema";
const char* const tvixb_capsule_array = "arrow_array";
const char* const tvixb_capsule_stream = "arrow_array_stream";

struct ArrowSchema* tvixb_capsule_new_schema(void) {
  return calloc(1, sizeof(struct ArrowSchema));
}

struct ArrowArray* tvixb_capsule_new_array(void) {
  return calloc(1, sizeof(struct ArrowArray));
}

struct ArrowArrayStream* tvixb_capsule_new_stream(void) {
  return calloc(1, sizeof(struct ArrowArrayStream));
}

void tvixb_capsule_free_schema(void* capsule) {
  struct ArrowSchema* schema =
      PyCapsule_GetPointer(capsule, tvixb_capsule_schema);
  if (schema->release) schema->release(schema);
  free(schema);
}

void tvixb_capsule_free_array(void* capsule) {
  struct ArrowArray* array = PyCapsule_GetPointer(capsule, tvixb_capsule_array);
  if (array->release) array->release(array);
  free(array);
}

void tvixb_capsule_free_stream(void* capsule) {
  struct ArrowArrayStream* stream =
      PyCapsule_GetPointer(capsule, tvixb_capsule_stream);
  if (stream->release) stream->release(stream);
  free(stream);
}
