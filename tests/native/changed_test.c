// SPDX-License-Identifier: MIT
//
// Changes a message during a call. The results of the other messages must stay
// the same, and those of the changed message must not depend on other messages.
// This needs no threads: the linker redirects the calls between stages to this
// file (--wrap), and each of these calls in turn changes the message before or
// after it.
#include <stdbool.h>
#include <stdio.h>

#include "build.h"
#include "decode.h"
#include "encode.h"
#include "hash.h"
#include "level.h"
#include "normalize.h"
#include "order.h"
#include "packed.h"
#include "report.h"
#include "scan.h"
#include "tvix_build.h"

// The ways to change the bytes of a message.
typedef enum change { ZEROS, ONES, SHORT, LONG, HIGH, MIXED, CHANGES } change;

static struct {
  uint8_t* data;            // of the message
  const uint8_t* original;  // its bytes before the change
  size_t size;
  change change;
  bool reverted;   // whether the next moment undoes the change
  size_t at;       // the moment of the change, counted from 1; 0: no change
  size_t moments;  // number of moments so far
} victim;

static void moment(void) {
  static const uint8_t fill[CHANGES] = {0x00, 0x01, 0x12, 0x7f, 0xff, 0x00};
  victim.moments++;
  if (victim.reverted && victim.moments == victim.at + 1) {
    memcpy(victim.data, victim.original, victim.size);
  }
  if (victim.moments != victim.at) return;
  memset(victim.data, fill[victim.change], victim.size);
  if (victim.change != MIXED) return;
  uint32_t state = 1;
  for (size_t i = 0; i < victim.size; i++) {
    state = state * 1664525u + 1013904223u;
    victim.data[i] = state >> 28 ? victim.original[i] : (uint8_t)(state >> 20);
  }
}

// Defines the function that the linker calls instead of another.
#define WRAP(type, name, parameters, arguments) \
  type __real_##name parameters;                \
  type __wrap_##name parameters {               \
    moment();                                   \
    type result = __real_##name arguments;      \
    moment();                                   \
    return result;                              \
  }
#define WRAP_VOID(name, parameters, arguments) \
  void __real_##name parameters;               \
  void __wrap_##name parameters {              \
    moment();                                  \
    __real_##name arguments;                   \
    moment();                                  \
  }

WRAP(bool, tvixb_scan_message,
     (tvixb_scan * scan, const tvixb_kind* kind, tvixb_view bytes,
      const uint64_t* caller_counts, tvixb_report* report),
     (scan, kind, bytes, caller_counts, report))
WRAP(bool, tvixb_packed_scan,
     (tvixb_scan * scan, const tvixb_field* field, tvixb_view list,
      unsigned depth),
     (scan, field, list, depth))
WRAP_VOID(tvixb_report_add,
          (tvixb_report * report, tvixb_code code, const tvixb_path* path,
           uint64_t number, tvixb_view value),
          (report, code, path, number, value))
WRAP(bool, tvixb_vector_grow,
     (tvixb_vector * vector, size_t more, size_t item_size),
     (vector, more, item_size))
WRAP(uint8_t*, tvixb_arena_take, (tvixb_arena * arena, size_t size),
     (arena, size))
WRAP(bool, tvixb_decode_check,
     (const tvixb_message* message, tvixb_view bytes, size_t* stop),
     (message, bytes, stop))
WRAP(bool, tvixb_normalize,
     (const tvixb_kind* kind, tvixb_view bytes, tvixb_arena* arena,
      tvixb_view* normal),
     (kind, bytes, arena, normal))
WRAP(bool, tvixb_order_lists,
     (tvixb_order * order, tvixb_scan* scan, const tvixb_kind* kind,
      const uint64_t* caller_counts, tvixb_arena* arena, tvixb_report* report),
     (order, scan, kind, caller_counts, arena, report))
WRAP(bool, tvixb_sort_elements,
     (const tvixb_scan* scan, size_t first, size_t count, tvixb_sort_key* keys,
      tvixb_sort_memory* memory),
     (scan, first, count, keys, memory))
WRAP(bool, tvixb_packed_order,
     (tvixb_scan * scan, tvixb_vector* numbers, tvixb_arena* arena,
      tvixb_report* report),
     (scan, numbers, arena, report))
WRAP(size_t, tvixb_encode,
     (const tvixb_scan* scan, const tvixb_order* order, const tvixb_kind* kind,
      uint8_t* encoded),
     (scan, order, kind, encoded))
WRAP_VOID(tvixb_encode_stream,
          (const tvixb_scan* scan, const tvixb_order* order,
           const tvixb_kind* kind, tvixb_hash_stream* stream),
          (scan, order, kind, stream))
WRAP_VOID(tvixb_hash_stream_put,
          (tvixb_hash_stream * stream, const uint8_t* data, size_t size),
          (stream, data, size))
WRAP_VOID(tvixb_hash_many,
          (const tvixb_view* views, size_t n, uint8_t* digests),
          (views, n, digests))

// Messages of one kind: the one that changes, between two others, in one
// buffer.
typedef struct batch {
  const tvixb_kind* kind;
  uint8_t* data;
  uint64_t offsets[4];
} batch;

// The results of a call.
typedef struct outcome {
  uint8_t verdicts[3], digests[3 * TVIXB_DIGEST_SIZE];
  uint64_t ends[3];
  uint8_t* encodings;
  size_t room;
  tvixb_violation violations[3 * TVIXB_VIOLATION_LIMIT];
  size_t count;
} outcome;

// The results that a call writes besides verdicts.
typedef struct wanted {
  bool digests, encodings;
} wanted;

static void check(tvixb_context* context, const batch* batch, wanted wanted,
                  outcome* out) {
  uint8_t* encodings = out->encodings;
  size_t room = out->room, count;
  *out = (outcome){.encodings = encodings, .room = room};
  memset(encodings, 0xee, room);
  const tvixb_encodings kept = {encodings, room, out->ends, 0};
  const tvixb_results results = {out->verdicts,
                                 wanted.digests ? out->digests : NULL,
                                 wanted.encodings ? &kept : NULL};
  tvixb_status status =
      tvixb_check(context, batch->kind, batch->data, batch->offsets[3],
                  batch->offsets, batch->offsets + 1, 3, &results);
  assert(status == TVIXB_OK);
  const tvixb_violation* found = tvixb_violations(context, &count);
  assert(count <= sizeof out->violations / sizeof *out->violations);
  if (count) memcpy(out->violations, found, count * sizeof *found);
  out->count = count;
}

static tvixb_view encoding_of(const outcome* outcome, size_t i) {
  uint64_t begin = i ? outcome->ends[i - 1] : 0;
  return (tvixb_view){outcome->encodings + begin, outcome->ends[i] - begin};
}

// Returns the violations of one message.
static buffer violations_of(const outcome* outcome, size_t i) {
  buffer all = {0};
  for (size_t j = 0; j < outcome->count; j++) {
    if (outcome->violations[j].message != i) continue;
    buffer_add(&all, &outcome->violations[j], sizeof *outcome->violations);
  }
  return all;
}

// Asserts that both calls have the same results for a message.
static void assert_same(const outcome* a, const outcome* b, size_t i) {
  assert(a->verdicts[i] == b->verdicts[i]);
  assert(memcmp(a->digests + i * TVIXB_DIGEST_SIZE,
                b->digests + i * TVIXB_DIGEST_SIZE, TVIXB_DIGEST_SIZE) == 0);
  tvixb_view one = encoding_of(a, i), other = encoding_of(b, i);
  assert(one.size == other.size);
  assert(memcmp(one.data, other.data, one.size) == 0);
  buffer some = violations_of(a, i), others = violations_of(b, i);
  assert(some.size == others.size);
  assert(!some.size || memcmp(some.data, others.data, some.size) == 0);
  free(some.data);
  free(others.data);
}

static tvixb_context* new_context(void) {
  tvixb_context* context = tvixb_context_new();
  assert(context);
  return context;
}

// Two batches that differ only in the messages around the one that changes,
// each with its results without and with a change.
typedef struct pair {
  batch batches[2];
  outcome before[2], after[2];
  tvixb_context* used[2];
} pair;

// Fills the memory in which a context will encode the changing message with the
// encodings of the messages around it.
static void use(tvixb_context* context, const batch* batch, outcome* room) {
  const uint64_t begins[2] = {0, batch->offsets[2]};
  const uint64_t ends[2] = {batch->offsets[1], batch->offsets[3]};
  const tvixb_results results = {room->verdicts, room->digests, NULL};
  victim.at = 0;
  assert(tvixb_check(context, batch->kind, batch->data, batch->offsets[3],
                     begins, ends, 2, &results) == TVIXB_OK);
}

// Checks both batches with the change, in new or in used contexts.
static void run(pair* pair, wanted wanted, bool used) {
  for (size_t i = 0; i < 2; i++) {
    const batch* batch = &pair->batches[i];
    tvixb_context* context = used ? pair->used[i] : new_context();
    victim.data = batch->data + batch->offsets[1];
    size_t at = victim.at;
    if (used) use(context, batch, &pair->after[i]);
    victim.at = at;
    victim.moments = 0;
    check(context, batch, wanted, &pair->after[i]);
    memcpy(victim.data, victim.original, victim.size);
    if (!used) tvixb_context_free(context);
    assert_same(&pair->before[i], &pair->after[i], 0);
    assert_same(&pair->before[i], &pair->after[i], 2);
  }
  assert_same(&pair->after[0], &pair->after[1], 1);
}

static const char request[] = "tvix.build.v1.BuildRequest";
static const char later_request[] = "snix.build.v1.BuildRequest";
static const char response[] = "snix.build.v1.BuildResponse";
static const char later_build[] = "tvix.build.v1@2024.Build";
static const char directory[] = "tvix.castore.v1.Directory";

// Adds an unsorted message of a kind, larger than most of those that change,
// with `secret` in all its values.
static void add_secret(buffer* out, const char* kind, char secret) {
  char value[200];
  memset(value, secret, sizeof value);
  bool later = kind == later_request || kind == later_build;
  buffer message = {0}, element = {0};
  if (kind == request) buffer_text(&message, 1, "sh");
  if (later) buffer_text(&message, 2, "sh");
  unsigned count = kind == response ? 5 : 40;
  for (unsigned i = 100 + count; i > 100; i--) {
    char key[8];
    snprintf(key, sizeof key, "%u", i);
    element.size = 0;
    if (kind != response) buffer_text(&element, 1, key);
    buffer_field(&element, 2, value, sizeof value);
    if (kind == response) {  // a symbolic link and needles
      buffer entry = {0}, output = {0};
      buffer_field(&entry, 3, element.data, element.size);
      buffer_field(&output, 1, entry.data, entry.size);
      buffer_text(&output, 2, "\2\1");
      buffer_field(&message, 1, output.data, output.size);
      free(entry.data);
      free(output.data);
    } else {  // a symbolic link of a Directory, or a variable
      buffer_field(&message, later ? 7 : 3, element.data, element.size);
    }
  }
  if (later) buffer_text(&message, 8, "\x0a\5linux");
  if (kind == later_build) {
    buffer_field(out, 1, message.data, message.size);
  } else {
    buffer_add(out, message.data, message.size);
  }
  free(message.data);
  free(element.data);
}

static void make_batch(batch* batch, const char* kind, const buffer* message,
                       char secret) {
  buffer all = {0};
  batch->kind = tvixb_kind_find(kind);
  assert(batch->kind);
  add_secret(&all, kind, secret);
  batch->offsets[1] = all.size;
  buffer_add(&all, message->data, message->size);
  batch->offsets[2] = all.size;
  add_secret(&all, kind, (char)(secret + 1));
  batch->offsets[3] = all.size;
  batch->data = all.data;
}

// Changes a message at each moment of a call, in each way. For a large message,
// makes fewer calls: only those without encodings, which hash it piece by
// piece.
static void check_message(const char* kind, const buffer* message,
                          tvixb_verdict verdict) {
  // The results to write, and whether to use a used context.
  static const struct {
    wanted wanted;
    bool used;
  } calls[] = {{{true, false}, true},
               {{false, true}, true},
               {{true, true}, true},
               {{true, true}, false}};
  pair pair = {0};
  victim.original = message->data;
  victim.size = message->size;
  for (size_t i = 0; i < 2; i++) {
    batch* batch = &pair.batches[i];
    make_batch(batch, kind, message, i ? 'x' : 'p');
    size_t room = tvixb_encoded_room(batch->kind, batch->offsets[3],
                                     batch->offsets, batch->offsets + 1, 3);
    pair.before[i].room = pair.after[i].room = room;
    pair.before[i].encodings = malloc(room);
    pair.after[i].encodings = malloc(room);
    assert(pair.before[i].encodings && pair.after[i].encodings);
    pair.used[i] = new_context();
  }
  size_t moments = 0;
  size_t step = message->size < 100000 ? 1 : 8;
  for (size_t i = 0; i < 4 * 2 * CHANGES; i += step) {
    wanted wanted = calls[i % 4].wanted;
    bool used = calls[i % 4].used;
    victim.reverted = i / 4 % 2;
    victim.change = (change)(i / 8);
    victim.at = 0;
    for (size_t j = 0; j < 2; j++) {
      check(pair.used[j], &pair.batches[j], wanted, &pair.before[j]);
      assert(pair.before[j].verdicts[0] == TVIXB_UNSORTED);
      assert(pair.before[j].verdicts[1] == verdict);
    }
    do {
      victim.at++;
      run(&pair, wanted, used);
      moments++;
    } while (victim.moments > victim.at);
  }
  assert(moments > 8 * CHANGES / step);
  for (size_t i = 0; i < 2; i++) {
    free(pair.before[i].encodings);
    free(pair.after[i].encodings);
    free(pair.batches[i].data);
    tvixb_context_free(pair.used[i]);
  }
}

// Adds outputs of several sizes in descending order. The last ones are larger
// than a block of the copy function.
static void add_outputs(buffer* out, unsigned count) {
  for (unsigned i = count; i > 0; i--) {
    char name[200];
    int size = snprintf(name, sizeof name, "name-%05u%*s", i, (int)i % 75, "");
    buffer_field(out, 2, name, (size_t)size);
  }
}

static void check_requests(void) {
  buffer message = {0};
  buffer_text(&message, 1, "sh");
  check_message(request, &message, TVIXB_CANONICAL);
  add_outputs(&message, 2);
  check_message(request, &message, TVIXB_UNSORTED);
  buffer_text(&message, 3, "\x0a\1k\x12\1v");
  buffer_text(&message, 3, "\x0a\1j\x12\1v");
  buffer_text(&message, 5, "\x0a\5linux");
  check_message(request, &message, TVIXB_UNSORTED);
  // A message that is not in the ordinary form.
  buffer_text(&message, 1, "-c");
  check_message(request, &message, TVIXB_UNSORTED);
  buffer_text(&message, 2, "");
  check_message(request, &message, TVIXB_INVALID);
  message.size--;
  check_message(request, &message, TVIXB_MALFORMED);
  message.size = 0;
  // Enough outputs for the radix sort.
  buffer_text(&message, 1, "sh");
  add_outputs(&message, 260);
  check_message(request, &message, TVIXB_UNSORTED);
  // Duplicates and an output that is an input.
  add_outputs(&message, 3);
  buffer_text(&message, 4, "\x1a\x0f\x0a\x0aname-00003\x12\1t");
  check_message(request, &message, TVIXB_INVALID);
  free(message.data);
}

// A message that is hashed piece by piece, unless its encoding is kept.
static void check_large_request(void) {
  buffer message = {0}, variable = {0};
  uint8_t* value = malloc(400000);
  assert(value);
  memset(value, 'v', 400000);
  buffer_text(&message, 1, "sh");
  for (char key = 'c'; key >= 'a'; key--) {
    variable.size = 0;
    buffer_field(&variable, 1, &key, 1);
    buffer_field(&variable, 2, value, 400000);
    buffer_field(&message, 3, variable.data, variable.size);
  }
  check_message(request, &message, TVIXB_UNSORTED);
  free(value);
  free(variable.data);
  free(message.data);
}

static void check_directories(void) {
  buffer message = {0};
  char node[] = "\x0a\1?\x12\x20................................\x18\7";
  for (char name = 'f'; name >= 'a'; name--) {
    node[2] = name;
    buffer_text(&message, 1 + (name < 'c'), node);
  }
  buffer_text(&message, 3, "\x0a\1z\x12\1t");
  buffer_text(&message, 3, "\x0a\1y\x12\1t");
  check_message(directory, &message, TVIXB_UNSORTED);
  buffer_text(&message, 3, "\x0a\1y\x12\1t");
  check_message(directory, &message, TVIXB_INVALID);
  free(message.data);
}

// Lists of numbers in the outputs of a response.
static void check_numbers(void) {
  buffer message = {0};
  // Two numbers are sorted and the last is not. The scan has read all of them
  // when it reports that.
  buffer_text(&message, 1, "\x0a\x05\x1a\x03\x12\1x\x12\3\3\4\2");
  buffer_text(&message, 1, "\x0a\x05\x1a\x03\x12\1y\x12\7\x81\2\5\1\x83\2\4");
  check_message(response, &message, TVIXB_UNSORTED);
  // Unpacked numbers.
  buffer_text(&message, 1, "\x0a\x05\x1a\x03\x12\1x\x10\5\x10\2");
  check_message(response, &message, TVIXB_UNSORTED);
  // Duplicate numbers.
  buffer_text(&message, 1, "\x0a\x05\x1a\x03\x12\1x\x12\4\5\1\3\1");
  check_message(response, &message, TVIXB_INVALID);
  free(message.data);
}

// A Build with its request, and with needles for its outputs.
static void check_build(void) {
  buffer request = {0}, message = {0};
  buffer_text(&request, 2, "sh");
  buffer_text(&request, 6, "b");
  buffer_text(&request, 6, "a");
  buffer_text(&request, 8, "\x0a\5linux");
  for (char needle = 'a'; needle < 'e'; needle++) {
    buffer_field(&request, 10, &needle, 1);
  }
  check_message(later_request, &request, TVIXB_UNSORTED);
  buffer_field(&message, 1, request.data, request.size);
  buffer_text(&message, 2, "\x1a\x06\x0a\1b\x12\1x");
  buffer_text(&message, 2, "\x1a\x06\x0a\1a\x12\1x");
  buffer_text(&message, 3, "\x0a\1\1");
  buffer_text(&message, 3, "\x0a\3\1\3\2");
  check_message(later_build, &message, TVIXB_UNSORTED);
  free(request.data);
  free(message.data);
}

int main(void) {
  if (level_is_missing()) return 0;
  check_requests();
  check_directories();
  check_numbers();
  check_build();
  check_large_request();
  puts("ok");
  return 0;
}
