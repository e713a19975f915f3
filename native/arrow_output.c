// SPDX-License-Identifier: MIT
//
// Makes Arrow arrays of reports. Every node of the tree owns its memory, so
// that a consumer can move a column out and release the rest, on any thread.
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arrow.h"
#include "memory.h"

#define CHILDREN_MAX 4
#define BUFFERS_MAX 3
#define NULLABLE 2  // ARROW_FLAG_NULLABLE

typedef struct field {
  const char* name;
  const char* format;
  int64_t flags;
  int64_t buffers;
  const struct field* children;
  int64_t child_count;
} field;

static const field violation_fields[] = {
    {"code", "u", 0, 3, NULL, 0},
    {"path", "u", 0, 3, NULL, 0},
    {"message", "u", 0, 3, NULL, 0},
};
static const field violations_fields[] = {
    {"item", "+s", 0, 1, violation_fields, 3},
};
static const field report_fields[] = {
    {"valid", "b", 0, 2, NULL, 0},
    {"canonical", "b", 0, 2, NULL, 0},
    {"digest", "w:32", NULLABLE, 2, NULL, 0},
    {"violations", "+l", 0, 2, violations_fields, 1},
};
static const field report_field = {"", "+s", 0, 1, report_fields, 4};

_Static_assert(TVIXB_DIGEST_SIZE == 32, "format of digest");

// Sets of verdicts, as bits.
enum {
  CANONICAL = 1 << TVIXB_CANONICAL,
  VALID = CANONICAL | 1 << TVIXB_VALID,
  HAS_DIGEST = VALID | 1 << TVIXB_UNSORTED,
};

typedef struct schema_node {
  struct ArrowSchema* pointers[CHILDREN_MAX];
  struct ArrowSchema children[CHILDREN_MAX];
} schema_node;

static void release_schema(struct ArrowSchema* schema) {
  for (int64_t i = 0; i < schema->n_children; i++) {
    struct ArrowSchema* child = schema->children[i];
    if (child->release) child->release(child);
  }
  free(schema->private_data);
  schema->release = NULL;
}

static bool make_schema(const field* field, struct ArrowSchema* out) {
  schema_node* node = calloc(1, sizeof *node);
  if (!node) return false;
  *out = (struct ArrowSchema){
      .format = field->format,
      .name = field->name,
      .flags = field->flags,
      .n_children = field->child_count,
      .children = node->pointers,
      .release = release_schema,
      .private_data = node,
  };
  bool made = true;
  for (int64_t i = 0; i < field->child_count; i++) {
    node->pointers[i] = &node->children[i];
    made = made && make_schema(&field->children[i], &node->children[i]);
  }
  if (!made) release_schema(out);
  return made;
}

tvixb_arrow_status tvixb_arrow_report_schema(struct ArrowSchema* out) {
  return make_schema(&report_field, out) ? TVIXB_ARROW_OK
                                         : TVIXB_ARROW_OUT_OF_MEMORY;
}

typedef struct array_node {
  const void* buffers[BUFFERS_MAX];
  struct ArrowArray* pointers[CHILDREN_MAX];
  struct ArrowArray children[CHILDREN_MAX];
} array_node;

static void release_array(struct ArrowArray* array) {
  assert(array->n_buffers <= BUFFERS_MAX);
  for (int64_t i = 0; i < array->n_children; i++) {
    struct ArrowArray* child = array->children[i];
    if (child->release) child->release(child);
  }
  for (int64_t i = 0; i < array->n_buffers; i++) free((void*)array->buffers[i]);
  free(array->private_data);
  array->release = NULL;
}

// Makes an array without buffers; the caller adds them. False if an allocation
// fails.
static bool make_array(const field* field, struct ArrowArray* out) {
  array_node* node = calloc(1, sizeof *node);
  if (!node) return false;
  *out = (struct ArrowArray){
      .n_buffers = field->buffers,
      .n_children = field->child_count,
      .buffers = node->buffers,
      .children = node->pointers,
      .release = release_array,
      .private_data = node,
  };
  bool made = true;
  for (int64_t i = 0; i < field->child_count; i++) {
    node->pointers[i] = &node->children[i];
    made = made && make_array(&field->children[i], &node->children[i]);
  }
  if (!made) release_array(out);
  return made;
}

// Adds a zeroed buffer of `count` items to an array. Returns the buffer; NULL
// if the allocation fails.
static void* add_buffer(struct ArrowArray* array, unsigned index, size_t count,
                        size_t item_size) {
  // One more item, because readers expect a non-NULL buffer even if it is
  // empty.
  void* buffer = calloc(count + 1, item_size);
  array->buffers[index] = buffer;
  return buffer;
}

// Adds a bitmap with a 1 for each verdict in the set.
static bool add_bits(struct ArrowArray* array, unsigned index,
                     const uint8_t* verdicts, size_t n, unsigned set) {
  uint8_t* bits = add_buffer(array, index, n / 8 + 1, 1);
  if (!bits) return false;
  for (size_t i = 0; i < n; i++) {
    bits[i / 8] |= (uint8_t)((set >> verdicts[i] & 1) << i % 8);
  }
  return true;
}

static bool add_digests(struct ArrowArray* array, const uint8_t* verdicts,
                        const uint8_t* digests, size_t n) {
  uint8_t* copy = add_buffer(array, 1, n, TVIXB_DIGEST_SIZE);
  if (!copy || !add_bits(array, 0, verdicts, n, HAS_DIGEST)) return false;
  if (n) memcpy(copy, digests, n * TVIXB_DIGEST_SIZE);
  for (size_t i = 0; i < n; i++) {
    array->null_count += !(HAS_DIGEST >> verdicts[i] & 1);
  }
  return true;
}

// Adds the offsets of each message's violations.
static bool add_lists(struct ArrowArray* array, size_t n,
                      const tvixb_violations_of* rows, size_t row_count) {
  int32_t* offsets = add_buffer(array, 1, n, sizeof *offsets);
  if (!offsets) return false;
  const tvixb_violations_of* row = rows;
  for (size_t i = 0; i < n; i++) {
    offsets[i + 1] = offsets[i];
    if (row == rows + row_count || row->message != i) continue;
    offsets[i + 1] += (int32_t)row->kept;
    row++;
  }
  return true;
}

// Writes a text about a violation, as tvixb_violation_path does.
typedef size_t describe(const tvixb_kind* kind,
                        const tvixb_violation* violation, char* text,
                        size_t capacity);

static size_t describe_code(const tvixb_kind* kind,
                            const tvixb_violation* violation, char* text,
                            size_t capacity) {
  (void)kind;
  return (size_t)snprintf(text, capacity, "%s",
                          tvixb_code_name(violation->code));
}

static bool append(tvixb_vector* texts, describe* describe,
                   const tvixb_kind* kind, const tvixb_violation* violation) {
  size_t needed = 0;
  size_t room;
  do {
    if (!tvixb_vector_reserve(texts, needed + 1, 1)) return false;
    room = texts->capacity - texts->count;
    needed =
        describe(kind, violation, (char*)texts->items + texts->count, room);
  } while (needed >= room);
  texts->count += needed;
  return true;
}

static tvixb_arrow_status add_texts(struct ArrowArray* array,
                                    describe* describe, const tvixb_kind* kind,
                                    const tvixb_violation* violations,
                                    size_t count) {
  array->length = (int64_t)count;
  int32_t* offsets = add_buffer(array, 1, count, sizeof *offsets);
  tvixb_vector texts = {0};
  if (!offsets || !tvixb_vector_reserve(&texts, 1, 1)) {
    return TVIXB_ARROW_OUT_OF_MEMORY;
  }
  tvixb_arrow_status status = TVIXB_ARROW_OK;
  for (size_t i = 0; i < count && status == TVIXB_ARROW_OK; i++) {
    if (!append(&texts, describe, kind, &violations[i])) {
      status = TVIXB_ARROW_OUT_OF_MEMORY;
    } else if (texts.count > INT32_MAX) {
      status = TVIXB_ARROW_TOO_LARGE;
    }
    offsets[i + 1] = (int32_t)texts.count;
  }
  array->buffers[2] = texts.items;
  return status;
}

static tvixb_arrow_status add_violations(struct ArrowArray* array,
                                         const tvixb_kind* kind,
                                         const tvixb_violation* violations,
                                         size_t count) {
  static describe* const columns[] = {describe_code, tvixb_violation_path,
                                      tvixb_violation_message};
  if (count > INT32_MAX) return TVIXB_ARROW_TOO_LARGE;
  array->length = (int64_t)count;
  for (unsigned i = 0; i < 3; i++) {
    tvixb_arrow_status status =
        add_texts(array->children[i], columns[i], kind, violations, count);
    if (status != TVIXB_ARROW_OK) return status;
  }
  return TVIXB_ARROW_OK;
}

tvixb_arrow_status tvixb_arrow_report_array(
    const tvixb_kind* kind, const uint8_t* verdicts, const uint8_t* digests,
    size_t n, const tvixb_violations_of* rows, size_t row_count,
    const tvixb_violation* violations, size_t violation_count,
    struct ArrowArray* out) {
  if (!make_array(&report_field, out)) return TVIXB_ARROW_OUT_OF_MEMORY;
  struct ArrowArray** columns = out->children;
  out->length = (int64_t)n;
  for (int64_t i = 0; i < out->n_children; i++) {
    columns[i]->length = (int64_t)n;
  }
  // First, because it checks whether the offsets of the lists fit 32 bits.
  tvixb_arrow_status status = add_violations(columns[3]->children[0], kind,
                                             violations, violation_count);
  if (status == TVIXB_ARROW_OK &&
      (!add_bits(columns[0], 1, verdicts, n, VALID) ||
       !add_bits(columns[1], 1, verdicts, n, CANONICAL) ||
       !add_digests(columns[2], verdicts, digests, n) ||
       !add_lists(columns[3], n, rows, row_count))) {
    status = TVIXB_ARROW_OUT_OF_MEMORY;
  }
  if (status != TVIXB_ARROW_OK) release_array(out);
  return status;
}

// The private data of a stream is its array, which is marked as released once
// the stream has yielded it.
static int stream_schema(struct ArrowArrayStream* stream,
                         struct ArrowSchema* out) {
  (void)stream;
  return tvixb_arrow_report_schema(out) == TVIXB_ARROW_OK ? 0 : ENOMEM;
}

static int stream_next(struct ArrowArrayStream* stream,
                       struct ArrowArray* out) {
  struct ArrowArray* array = stream->private_data;
  *out = *array;  // a released array marks the end of the stream
  array->release = NULL;
  return 0;
}

static const char* stream_error(struct ArrowArrayStream* stream) {
  (void)stream;
  return NULL;  // the errno is enough
}

static void stream_release(struct ArrowArrayStream* stream) {
  struct ArrowArray* array = stream->private_data;
  if (array->release) array->release(array);
  free(array);
  stream->release = NULL;
}

tvixb_arrow_status tvixb_arrow_report_stream(struct ArrowArray* array,
                                             struct ArrowArrayStream* out) {
  struct ArrowArray* own = malloc(sizeof *own);
  if (!own) return TVIXB_ARROW_OUT_OF_MEMORY;
  *own = *array;
  array->release = NULL;
  *out = (struct ArrowArrayStream){
      .get_schema = stream_schema,
      .get_next = stream_next,
      .get_last_error = stream_error,
      .release = stream_release,
      .private_data = own,
  };
  return TVIXB_ARROW_OK;
}
