// SPDX-License-Identifier: MIT
//
// Makes each allocation of a call fail, alone and together with all later ones.
// The call must return TVIXB_OUT_OF_MEMORY and not leak, and the context must
// then serve the same call. The linker redirects the library's allocations to
// this file (--wrap).
#include <stdbool.h>
#include <stdio.h>

#include "arrow.h"
#include "build.h"
#include "tvix_build.h"

#define COUNT_MAX 3000

void* __real_malloc(size_t size);
void* __real_calloc(size_t count, size_t size);
void* __real_realloc(void* old, size_t size);
void __real_free(void* memory);

static size_t live;    // allocations not yet freed
static size_t until;   // allocations until one fails; 0: none fails
static bool lasting;   // whether all later allocations fail too
static size_t failed;  // number of allocations that failed

static bool fails(void) {
  if (until == 0 || --until > 0) return false;
  if (lasting) until = 1;
  failed++;
  return true;
}

static void* counted(void* memory) {
  live += memory != NULL;
  return memory;
}

void* __wrap_malloc(size_t size) {
  return fails() ? NULL : counted(__real_malloc(size));
}

void* __wrap_calloc(size_t count, size_t size) {
  return fails() ? NULL : counted(__real_calloc(count, size));
}

void* __wrap_realloc(void* old, size_t size) {
  if (fails()) return NULL;
  void* memory = __real_realloc(old, size);
  return old ? memory : counted(memory);
}

void __wrap_free(void* memory) {
  live -= memory != NULL;
  __real_free(memory);
}

// Makes allocation `number`, counted from 1, fail.
static void fail_at(size_t number) {
  until = number;
  failed = 0;
}

// Stops making allocations fail. Returns whether any failed.
static bool stop_failing(void) {
  until = 0;
  return failed > 0;
}

typedef struct batch {
  const char* kind;
  buffer data;
  size_t n;
  uint64_t offsets[COUNT_MAX + 1];
} batch;

static batch* new_batch(const char* kind) {
  batch* made = calloc(1, sizeof *made);
  assert(made);
  made->kind = kind;
  return made;
}

// Ends a message that was appended to the data of the batch.
static void end_message(batch* batch) {
  assert(batch->n < COUNT_MAX);
  batch->offsets[++batch->n] = batch->data.size;
}

// The results of the last call.
static uint8_t verdicts[COUNT_MAX];
static uint8_t digests[COUNT_MAX * TVIXB_DIGEST_SIZE];
static uint64_t ends[COUNT_MAX];

// Checks a batch. Writes encodings if `room` is not NULL.
static tvixb_status check(tvixb_context* context, const batch* batch,
                          buffer* room) {
  const tvixb_encodings encodings = {room ? room->data : NULL,
                                     room ? room->capacity : 0, ends, 0};
  const tvixb_results results = {verdicts, digests, room ? &encodings : NULL};
  return tvixb_check(context, tvixb_kind_find(batch->kind), batch->data.data,
                     batch->data.size, batch->offsets, batch->offsets + 1,
                     batch->n, &results);
}

// Returns all results of the last call.
static buffer found(const tvixb_context* context, const batch* batch,
                    const buffer* room) {
  buffer all = {0};
  size_t count;
  buffer_add(&all, verdicts, batch->n);
  buffer_add(&all, digests, batch->n * TVIXB_DIGEST_SIZE);
  if (room) {
    buffer_add(&all, ends, batch->n * sizeof *ends);
    buffer_add(&all, room->data, batch->n ? ends[batch->n - 1] : 0);
  }
  const void* items = tvixb_violations(context, &count);
  buffer_add(&all, items, count * sizeof(tvixb_violation));
  items = tvixb_violations_by_message(context, &count);
  buffer_add(&all, items, count * sizeof(tvixb_violations_of));
  return all;
}

// Makes a call fail at an allocation and repeats it, in a new context or in one
// that has checked the batch `before`. Returns false if the call has fewer
// allocations.
static bool check_failure(const batch* batch, const struct batch* before,
                          buffer* room, size_t number, buffer* expected) {
  size_t live_before = live;
  tvixb_context* context = tvixb_context_new();
  assert(context);
  if (before) assert(check(context, before, NULL) == TVIXB_OK);
  fail_at(number);
  tvixb_status status = check(context, batch, room);
  bool out_of_memory = stop_failing();
  assert(status == (out_of_memory ? TVIXB_OUT_OF_MEMORY : TVIXB_OK));
  assert(check(context, batch, room) == TVIXB_OK);
  buffer all = found(context, batch, room);
  assert(all.size == expected->size);
  assert(memcmp(all.data, expected->data, all.size) == 0);
  free(all.data);
  tvixb_context_free(context);
  assert(live == live_before);
  return out_of_memory;
}

// Makes each allocation of a call fail. Returns the number of allocations of a
// call in a new context.
static size_t check_failures(const batch* batch, const struct batch* before) {
  size_t most = 0;
  for (int variant = 0; variant < 8; variant++) {
    buffer room = {0};
    room.capacity = batch->data.size;
    room.data = malloc(room.capacity + 1);
    buffer* kept = variant & 1 ? &room : NULL;
    tvixb_context* context = tvixb_context_new();
    assert(check(context, batch, kept) == TVIXB_OK);
    buffer expected = found(context, batch, kept);
    tvixb_context_free(context);
    lasting = variant & 2;
    size_t number = 1;
    while (check_failure(batch, variant & 4 ? before : NULL, kept, number,
                         &expected)) {
      number++;
    }
    if (number - 1 > most) most = number - 1;
    free(expected.data);
    free(room.data);
  }
  return most;
}

// Makes a stream of a report, and reads its schema and array.
static bool report_stream(const tvixb_context* context, const batch* batch) {
  size_t rows, violations;
  const tvixb_violations_of* of = tvixb_violations_by_message(context, &rows);
  const tvixb_violation* all = tvixb_violations(context, &violations);
  struct ArrowArray array;
  if (tvixb_arrow_report_array(tvixb_kind_find(batch->kind), verdicts, digests,
                               batch->n, of, rows, all, violations,
                               &array) != TVIXB_ARROW_OK) {
    return false;
  }
  struct ArrowArrayStream stream;
  if (tvixb_arrow_report_stream(&array, &stream) != TVIXB_ARROW_OK) {
    array.release(&array);
    return false;
  }
  struct ArrowSchema schema;
  int error = stream.get_schema(&stream, &schema);
  if (!error) schema.release(&schema);
  struct ArrowArray next;
  assert(stream.get_next(&stream, &next) == 0);
  assert(next.length == (int64_t)batch->n);
  next.release(&next);
  stream.release(&stream);
  return !error;
}

static void check_report_failures(const batch* batch) {
  tvixb_context* context = tvixb_context_new();
  assert(check(context, batch, NULL) == TVIXB_OK);
  size_t live_before = live;
  bool out_of_memory;
  size_t number = 1;
  do {
    lasting = number % 2;
    fail_at(number++);
    bool made = report_stream(context, batch);
    out_of_memory = stop_failing();
    assert(made == !out_of_memory);
    assert(live == live_before);
  } while (out_of_memory);
  assert(number > 20);
  tvixb_context_free(context);
}

static void check_new_context(void) {
  fail_at(1);
  assert(!tvixb_context_new());
  assert(stop_failing() && live == 0);
}

static void add_names(buffer* out, unsigned number, unsigned count,
                      unsigned step) {
  for (unsigned i = 0; i < count; i++) {
    char name[32];
    snprintf(name, sizeof name, "name-%06u", i * step % count);
    buffer_text(out, number, name);
  }
}

static void add_embedded(buffer* out, unsigned number, buffer* content) {
  buffer_field(out, number, content->data, content->size);
  free(content->data);
  *content = (buffer){0};
}

// Returns a batch with every verdict, and every code path to it.
static batch* requests(void) {
  batch* all = new_batch("tvix.build.v1.BuildRequest");
  buffer* data = &all->data;
  for (int i = 0; i < 250; i++) {
    buffer_text(data, 1, "sh");  // canonical
    add_names(data, 2, 30, 1);
    end_message(all);
    buffer_text(data, 1, "sh");  // unsorted
    add_names(data, 2, 30, 7);
    end_message(all);
    add_names(data, 2, 3, 1);  // parts to merge and a late field
    buffer_text(data, 5, "\x0a\x01x");
    buffer_text(data, 5, "\x1a\x02/a");
    buffer_text(data, 1, "sh");
    end_message(all);
    add_names(data, 2, i % 100 ? 1 : 300, 0);  // violations
    end_message(all);
    buffer_text(data, 1, "x");  // malformed
    data->data[data->size - 2] = 0x7f;
    end_message(all);
  }
  return all;
}

// Returns a batch with lists that are distributed to buckets, and messages that
// are hashed piece by piece if their encoding is not kept.
static batch* large_requests(void) {
  enum { FILL = 1 << 20 };
  batch* all = new_batch("tvix.build.v1.BuildRequest");
  buffer* data = &all->data;
  char* fill = malloc(FILL);
  memset(fill, 'x', FILL);
  buffer_field(data, 1, fill, FILL);
  add_names(data, 2, 40000, 20011);
  end_message(all);
  add_names(data, 2, 40000, 20011);  // late fields
  buffer_field(data, 1, fill, FILL);
  end_message(all);
  free(fill);
  return all;
}

static batch* directories(void) {
  static const uint8_t digest[32];
  batch* all = new_batch("tvix.castore.v1.Directory");
  for (unsigned i = 0; i < 900; i++) {
    char name[32];
    snprintf(name, sizeof name, "name-%u", i * 7 % 899);
    buffer node = {0};
    buffer_text(&node, 1, name);
    buffer_field(&node, 2, digest, sizeof digest);
    add_embedded(&all->data, 1 + i / 450, &node);
    if (i % 100 == 99) end_message(all);
  }
  return all;
}

static batch* builds(void) {
  batch* all = new_batch("tvix.build.v1.Build");
  for (unsigned i = 0; i < 3; i++) {
    buffer request = {0};
    add_names(&request, 2, 200, 2 * i + 1);
    buffer_text(&request, 1, "sh");
    add_embedded(&all->data, 1, &request);
    for (unsigned j = 0; j < 200 * i; j++) {
      buffer_text(&all->data, 2, "\x1a\x06\x0a\x01x\x12\x01y");
    }
    end_message(all);
  }
  return all;
}

int main(void) {
  check_new_context();
  batch* all[] = {requests(), large_requests(), directories(), builds()};
  enum { COUNT = sizeof all / sizeof *all };
  for (unsigned i = 0; i < COUNT; i++) {
    size_t count = check_failures(all[i], all[(i + 1) % COUNT]);
    printf("%s: %zu messages, %zu allocations\n", all[i]->kind, all[i]->n,
           count);
    assert(count > 3);
    check_report_failures(all[i]);
  }
  for (unsigned i = 0; i < COUNT; i++) {
    free(all[i]->data.data);
    free(all[i]);
  }
  assert(live == 0);
  puts("ok");
  return 0;
}
