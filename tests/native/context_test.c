// SPDX-License-Identifier: MIT
//
// Tests what vectors cannot express: large batches and lists, limits, messages
// of violations, reuse of contexts, bad ranges and streams.
#include <stdbool.h>
#include <stdio.h>

#include "build.h"
#include "level.h"
#include "tvix_build.h"

static const tvixb_kind* request_kind(void) {
  return tvixb_kind_find("tvix.build.v1.BuildRequest");
}

static uint32_t random_number(uint32_t* seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 17;
  return *seed ^= *seed << 5;
}

// Checks one message. Writes its canonical encoding to `encoded` if that is not
// NULL; the encoding must not be longer than the message.
static tvixb_verdict check_one(tvixb_context* context, const buffer* message,
                               uint8_t* digest, uint8_t* encoded) {
  const uint64_t offsets[2] = {0, message->size};
  uint8_t verdict;
  uint64_t end;
  const tvixb_encodings encodings = {
      encoded,
      tvixb_encoded_room(request_kind(), message->size, offsets, offsets + 1,
                         1),
      &end, 7};
  const tvixb_results results = {&verdict, digest, encoded ? &encodings : NULL};
  assert(tvixb_check(context, request_kind(), message->data, message->size,
                     offsets, offsets + 1, 1, &results) == TVIXB_OK);
  if (encoded)
    assert(end == 7 + (verdict <= TVIXB_UNSORTED ? message->size : 0));
  return verdict;
}

// Returns a request whose outputs are a common prefix and the numbers of
// `order`, followed by an environment variable.
static buffer request_with_outputs(const uint32_t* order, size_t count) {
  buffer message = {0};
  buffer_text(&message, 1, "sh");
  for (size_t i = 0; i < count; i++) {
    char name[64];
    snprintf(name, sizeof name, "a-common-prefix-%08u", order[i]);
    buffer_text(&message, 2, name);
  }
  buffer_text(&message, 3, "\x0a\1k");
  return message;
}

static void check_sorting(tvixb_context* context, size_t count, uint32_t seed) {
  uint32_t* order = calloc(count + 1, sizeof *order);
  for (size_t i = 0; i < count; i++) order[i] = (uint32_t)i;
  buffer sorted = request_with_outputs(order, count);
  uint8_t expected[32], found[32];
  assert(check_one(context, &sorted, expected, NULL) == TVIXB_CANONICAL);
  for (size_t i = count; seed && i > 1; i--) {
    size_t j = random_number(&seed) % i;
    uint32_t swapped = order[i - 1];
    order[i - 1] = order[j];
    order[j] = swapped;
  }
  for (size_t i = 0; !seed && i < count; i++) {
    order[i] = (uint32_t)(count - 1 - i);
  }
  buffer shuffled = request_with_outputs(order, count);
  uint8_t* encoded = malloc(shuffled.size);
  check_one(context, &shuffled, found, encoded);
  assert(memcmp(encoded, sorted.data, sorted.size) == 0);
  free(encoded);
  assert(memcmp(expected, found, sizeof found) == 0);
  free(sorted.data);
  free(shuffled.data);
  free(order);
}

// Elements of all sizes, up to several times the stream buffer, in descending
// order. The message is hashed piece by piece, or encoded first.
static void check_large_elements(tvixb_context* context) {
  buffer message = {0};
  uint8_t* value = malloc(100000);
  assert(value);
  memset(value, 'v', 100000);
  buffer_text(&message, 1, "sh");
  for (unsigned i = 100; i > 0; i--) {
    buffer variable = {0};
    char key[8];
    snprintf(key, sizeof key, "k%03u", i);
    buffer_text(&variable, 1, key);
    buffer_field(&variable, 2, value, 997 * i);
    buffer_field(&message, 3, variable.data, variable.size);
    free(variable.data);
  }
  uint8_t hashed[32], kept[32];
  uint8_t* encoded = malloc(message.size);
  assert(check_one(context, &message, hashed, NULL) == TVIXB_UNSORTED);
  assert(check_one(context, &message, kept, encoded) == TVIXB_UNSORTED);
  assert(memcmp(hashed, kept, sizeof kept) == 0);
  free(encoded);
  free(value);
  free(message.data);
}

static void check_limit(tvixb_context* context) {
  buffer message = {0};
  for (int i = 0; i < 1000; i++) buffer_text(&message, 2, "");
  size_t rows, count;
  for (uint32_t limit = 1; limit <= 10; limit += 3) {
    tvixb_context_set_violation_limit(context, limit);
    uint8_t digest[32];
    assert(check_one(context, &message, digest, NULL) == TVIXB_INVALID);
    const tvixb_violations_of* row =
        tvixb_violations_by_message(context, &rows);
    const tvixb_violation* all = tvixb_violations(context, &count);
    // No command, and 1000 invalid names, 999 of which are duplicates.
    assert(rows == 1 && row->total == 2000);
    assert(row->kept == limit && count == limit);
    assert(all[0].code == TVIXB_CODE_REQUIRED);
    if (limit > 3) {
      assert(all[1].code == TVIXB_CODE_INVALID_NAME && all[1].index[0] == 0);
      assert(all[2].code == TVIXB_CODE_INVALID_NAME && all[2].index[0] == 1);
      assert(all[3].code == TVIXB_CODE_DUPLICATE && all[3].index[0] == 1);
    }
  }
  tvixb_context_set_violation_limit(context, TVIXB_VIOLATION_LIMIT);
  free(message.data);
}

// The engine finds duplicates in the order of their names, but must keep those
// that are first in the message.
static void check_order_of_violations(tvixb_context* context) {
  enum { NAMES = 500 };
  const uint32_t limits[] = {UINT32_MAX, 1, 2, 3, 64, 100, NAMES - 1, NAMES};
  buffer message = {0};
  buffer_text(&message, 1, "sh");
  for (uint32_t i = 0; i < 2 * NAMES; i++) {
    char name[16];
    snprintf(name, sizeof name, "%08u", (2 * NAMES - 1 - i) / 2 * 7 % NAMES);
    buffer_text(&message, 2, name);
  }
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    tvixb_context_set_violation_limit(context, limits[i]);
    uint8_t digest[32];
    assert(check_one(context, &message, digest, NULL) == TVIXB_INVALID);
    size_t rows, count;
    const tvixb_violations_of* row =
        tvixb_violations_by_message(context, &rows);
    const tvixb_violation* all = tvixb_violations(context, &count);
    assert(rows == 1 && row->total == NAMES + 1);
    assert(count == (limits[i] < NAMES + 1 ? limits[i] : NAMES + 1));
    // The second one of each pair, and one that is not sorted.
    unsigned unsorted = 0;
    for (size_t j = 0; j < count; j++) {
      if (all[j].code == TVIXB_CODE_NOT_SORTED) {
        unsorted++;
      } else {
        assert(all[j].code == TVIXB_CODE_DUPLICATE);
        assert(all[j].index[0] == 2 * (j - unsorted) + 1);
      }
    }
    assert(unsorted <= 1);
  }
  tvixb_context_set_violation_limit(context, TVIXB_VIOLATION_LIMIT);
  free(message.data);
}

static tvixb_verdict check_kind(tvixb_context* context, const char* name,
                                const buffer* message) {
  const uint64_t offsets[2] = {0, message->size};
  uint8_t verdict, digest[32];
  const tvixb_results results = {&verdict, digest, NULL};
  assert(tvixb_check(context, tvixb_kind_find(name), message->data,
                     message->size, offsets, offsets + 1, 1,
                     &results) == TVIXB_OK);
  return verdict;
}

// Returns whether the last message has exactly one violation, at output
// `index`.
static bool has_only(tvixb_context* context, tvixb_code code, uint64_t index) {
  size_t count;
  const tvixb_violation* all = tvixb_violations(context, &count);
  return count == 1 && all[0].code == code && all[0].index[0] == index;
}

// Returns a response with two outputs, which are symbolic links. The second has
// needle 2.
static buffer two_outputs(void) {
  static const char outputs[] =
      "\x0a\x07\x0a\x05\x1a\x03\x12\1x"
      "\x0a\x0a\x0a\x05\x1a\x03\x12\1x\x12\1\2";
  buffer message = {0};
  buffer_add(&message, outputs, sizeof outputs - 1);
  return message;
}

// The counts of a request stay set until the next call. They apply only to
// responses of snix.
static void check_request(tvixb_context* context) {
  static const char response[] = "snix.build.v1.BuildResponse";
  buffer message = two_outputs();
  static const struct {
    uint64_t outputs, needles;
    tvixb_code code;  // 0: no violation
    uint64_t index;
  } cases[] = {
      {TVIXB_ANY, TVIXB_ANY, 0, 0},
      {2, 3, 0, 0},
      {2, TVIXB_ANY, 0, 0},
      {TVIXB_ANY, 3, 0, 0},
      {1, TVIXB_ANY, TVIXB_CODE_UNEXPECTED_OUTPUT, 1},
      {3, TVIXB_ANY, TVIXB_CODE_MISSING_OUTPUT, 2},
      {TVIXB_ANY, 2, TVIXB_CODE_INVALID_NEEDLE, 1},
      {2, 0, TVIXB_CODE_INVALID_NEEDLE, 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tvixb_context_set_request(context, cases[i].outputs, cases[i].needles);
    for (int again = 0; again < 2; again++) {
      tvixb_verdict verdict = check_kind(context, response, &message);
      assert(verdict == (cases[i].code ? TVIXB_INVALID : TVIXB_CANONICAL));
      assert(!cases[i].code ||
             has_only(context, cases[i].code, cases[i].index));
      // Other kinds ignore the request.
      const buffer nothing = {0};
      assert(check_kind(context, "snix.castore.v1.Directory", &nothing) ==
             TVIXB_CANONICAL);
    }
  }
  tvixb_context_set_request(context, TVIXB_ANY, TVIXB_ANY);
  assert(check_kind(context, response, &message) == TVIXB_CANONICAL);

  // The total number of missing outputs saturates.
  const uint8_t nameless[] = {0x0a, 9, 0x0a, 5, 0x0a, 3, 0x0a, 1, 'a', 0x78, 1};
  const buffer bad = {(uint8_t*)nameless, sizeof nameless, 0};
  size_t rows;
  for (uint64_t outputs = UINT64_MAX - 10; outputs < TVIXB_ANY; outputs++) {
    tvixb_context_set_request(context, outputs, TVIXB_ANY);
    assert(check_kind(context, response, &bad) == TVIXB_INVALID);
    assert(tvixb_violations_by_message(context, &rows)->total >= outputs - 1);
    assert(rows == 1);
  }
  tvixb_context_set_request(context, TVIXB_ANY, TVIXB_ANY);
  free(message.data);
}

static void check_bad_ranges(tvixb_context* context) {
  const uint8_t data[4] = {0x0a, 0x02, 's', 'h'};
  const uint64_t bad[][2] = {{1, 0}, {0, 5}, {5, 5}, {UINT64_MAX, 4}};
  uint8_t verdict, digest[32];
  const tvixb_results results = {&verdict, digest, NULL};
  for (size_t i = 0; i < 4; i++) {
    assert(tvixb_check(context, request_kind(), data, 4, &bad[i][0], &bad[i][1],
                       1, &results) == TVIXB_BAD_RANGE);
  }
  const uint64_t offsets[2] = {0, 4};
  assert(tvixb_check(context, request_kind(), data, 4, offsets, offsets + 1, 1,
                     &results) == TVIXB_OK);
  assert(verdict == TVIXB_CANONICAL);
  assert(tvixb_check(context, request_kind(), NULL, 0, NULL, NULL, 0,
                     &results) == TVIXB_OK);
}

// Misaligned arrays of offsets are rejected and not read.
static void check_misaligned(tvixb_context* context) {
  const uint8_t data[4] = {0x0a, 0x02, 's', 'h'};
  uint8_t verdict = 0xee, digest[32], encoded[4];
  // Two numbers, 0 and 4, at every alignment.
  for (size_t shift = 0; shift < 16; shift++) {
    uint64_t memory[5] = {0}, end = 0xee;
    const uint64_t good[2] = {0, 4};
    memcpy((uint8_t*)memory + shift, good, sizeof good);
    const uint64_t* offsets = (uint64_t*)(void*)((uint8_t*)memory + shift);
    bool aligned = shift % _Alignof(uint64_t) == 0;
    tvixb_status expected = aligned ? TVIXB_OK : TVIXB_BAD_RANGE;
    tvixb_encodings encodings = {encoded, sizeof encoded, &end, 0};
    const tvixb_results results = {&verdict, digest, &encodings};
    assert(tvixb_check(context, request_kind(), data, 4, good, offsets + 1, 1,
                       &results) == expected);
    assert(tvixb_check(context, request_kind(), data, 4, offsets, good + 1, 1,
                       &results) == expected);
    assert(tvixb_blake3_many(data, 4, offsets, good + 1, 1, digest) ==
           expected);
    assert(tvixb_blake3_many(data, 4, good, offsets + 1, 1, digest) ==
           expected);
    size_t room = aligned ? 4 : 0;
    assert(tvixb_encoded_room(request_kind(), 4, offsets, good + 1, 1) == room);
    assert(tvixb_encoded_room(request_kind(), 4, good, offsets + 1, 1) == room);
    // A misaligned array for the ends of encodings.
    encodings.ends = (uint64_t*)(void*)((uint8_t*)memory + shift);
    verdict = 0xee;
    assert(tvixb_check(context, request_kind(), data, 4, good, good + 1, 1,
                       &results) == expected);
    assert(verdict == (aligned ? TVIXB_CANONICAL : 0xee));
  }
}

// Valid and invalid messages in many windows, some larger than a window. Each
// must have the same results as alone.
static void check_batch(tvixb_context* context) {
  enum { COUNT = 5000 };
  static uint64_t begins[COUNT], ends[COUNT];
  static uint8_t verdicts[COUNT], without[COUNT], digests[COUNT * 32];
  buffer stream = {0};
  uint32_t seed = 7;
  for (size_t i = 0; i < COUNT; i++) {
    uint32_t names[3] = {random_number(&seed) % 10, random_number(&seed) % 10,
                         11};
    buffer message = request_with_outputs(names, i % 4);
    if (i % 7 == 0) buffer_text(&message, 9, "unknown");
    if (i % 11 == 0) message.size--;
    if (i % 13 == 0) buffer_text(&message, 1, "out of order");
    if (i % 1000 == 999) {
      uint8_t* large = calloc(1, 400000);
      memset(large, 'x', 400000);
      buffer_field(&message, 1, large, 400000);
      free(large);
    }
    buffer_varint(&stream, message.size);
    buffer_add(&stream, message.data, message.size);
    free(message.data);
  }
  size_t count, consumed;
  assert(tvixb_split_delimited(stream.data, stream.size, begins, ends, COUNT,
                               &count, &consumed) == TVIXB_SPLIT_OK);
  assert(count == COUNT && consumed == stream.size);
  const tvixb_results undigested = {without, NULL, NULL};
  assert(tvixb_check(context, request_kind(), stream.data, stream.size, begins,
                     ends, COUNT, &undigested) == TVIXB_OK);
  const tvixb_results results = {verdicts, digests, NULL};
  assert(tvixb_check(context, request_kind(), stream.data, stream.size, begins,
                     ends, COUNT, &results) == TVIXB_OK);
  assert(memcmp(verdicts, without, COUNT) == 0);
  size_t rows, seen[5] = {0};
  tvixb_violations_by_message(context, &rows);
  tvixb_context* other = tvixb_context_new();
  for (size_t i = 0; i < COUNT; i++) {
    uint8_t verdict, digest[32];
    const tvixb_results alone = {&verdict, digest, NULL};
    assert(tvixb_check(other, request_kind(), stream.data, stream.size,
                       begins + i, ends + i, 1, &alone) == TVIXB_OK);
    assert(verdict == verdicts[i]);
    assert(memcmp(digest, digests + 32 * i, 32) == 0);
    seen[verdict]++;
  }
  assert(rows ==
         seen[TVIXB_UNSORTED] + seen[TVIXB_INVALID] + seen[TVIXB_MALFORMED]);
  for (size_t i = 0; i < 5; i++) assert(seen[i] > 0);
  tvixb_context_free(other);
  free(stream.data);
}

static void check_split(void) {
  uint64_t begins[4], ends[4];
  size_t count, consumed;
  const uint8_t whole[] = {1, 'a', 0, 2, 'b', 'c'};
  for (size_t size = 0; size <= sizeof whole; size++) {
    assert(tvixb_split_delimited(whole, size, begins, ends, 4, &count,
                                 &consumed) == TVIXB_SPLIT_OK);
    size_t records = size < 2 ? 0 : size == 2 ? 1 : size < 6 ? 2 : 3;
    assert(count == records);
    assert(consumed == (records == 3 ? 6 : records == 2 ? 3 : records * 2));
  }
  assert(begins[2] == 4 && ends[2] == 6);
  tvixb_split_delimited(whole, sizeof whole, begins, ends, 2, &count,
                        &consumed);
  assert(count == 2 && consumed == 3);
  const uint8_t cut[] = {0xff, 0xff, 0xff, 0xff};
  const uint8_t zero[] = {0x80};
  assert(tvixb_split_delimited(zero, 1, begins, ends, 4, &count, &consumed) ==
         TVIXB_SPLIT_OK);
  const uint8_t too_large[] = {0xff, 0xff, 0xff, 0xff, 0x08};
  const uint8_t too_long[] = {0x81, 0x80, 0x80, 0x80, 0x80, 0x00};
  assert(tvixb_split_delimited(cut, 4, begins, ends, 4, &count, &consumed) ==
         TVIXB_SPLIT_OK);
  assert(tvixb_split_delimited(too_large, 5, begins, ends, 4, &count,
                               &consumed) == TVIXB_SPLIT_BAD_LENGTH);
  assert(tvixb_split_delimited(too_long, 6, begins, ends, 4, &count,
                               &consumed) == TVIXB_SPLIT_BAD_LENGTH);
  assert(count == 0 && consumed == 0);
}

static void check_count(void) {
  buffer message = {0};
  uint8_t fields[300];
  for (size_t i = 0; i < sizeof fields; i++) fields[i] = i % 2 ? 0 : 0x12;
  for (size_t i = 0; i < sizeof fields; i++) {
    assert(tvixb_count_fields(message.data, message.size, 2) == i);
    assert(tvixb_count_fields(message.data, message.size, 1) == i / 3);
    assert(tvixb_count_fields(message.data, message.size, 3) == 0);
    buffer_field(&message, 2, fields, i);  // nested fields are not counted
    if (i % 3 == 2) buffer_text(&message, 1, "");
  }
  // The truncated last field is not counted.
  buffer_text(&message, 7, "cut");
  assert(tvixb_count_fields(message.data, message.size, 7) == 1);
  assert(tvixb_count_fields(message.data, message.size - 1, 7) == 0);
  free(message.data);
}

static void check_found(const buffer* message, uint32_t number, uint64_t begin,
                        uint64_t end) {
  uint64_t found[2];
  tvixb_find_fields(message->data, message->size, number, &found[0], &found[1]);
  assert(found[0] == begin && found[1] == end);
}

static void check_find(void) {
  buffer message = {0};
  check_found(&message, 1, 0, 0);
  buffer_text(&message, 2, "two");
  uint64_t begin = message.size;
  buffer_text(&message, 4, "four");
  buffer_text(&message, 4, "");
  uint64_t end = message.size;
  buffer_text(&message, 5, "five");
  check_found(&message, 1, 0, 0);
  check_found(&message, 2, 0, begin);
  check_found(&message, 3, begin, begin);
  check_found(&message, 4, begin, end);
  check_found(&message, 5, end, message.size);
  check_found(&message, 6, message.size, message.size);
  message.size--;  // The last field is truncated.
  check_found(&message, 4, begin, end);
  check_found(&message, 5, end, end);
  free(message.data);
}

// Two messages, with one byte too few for their encodings.
static void check_room(tvixb_context* context) {
  const uint8_t data[] = "\x0a\1x\x0a\1y";
  const uint64_t offsets[] = {0, 3, 6};
  uint8_t verdicts[2], digests[64], encoded[6];
  uint64_t ends[2];
  for (size_t i = 0; i < 4; i++) {
    size_t room = 5 + i % 2;
    const tvixb_encodings encodings = {encoded, room, ends, 0};
    const tvixb_results results = {verdicts, i < 2 ? digests : NULL,
                                   &encodings};
    assert(tvixb_check(context, request_kind(), data, 6, offsets, offsets + 1,
                       2, &results) ==
           (room == 6 ? TVIXB_OK : TVIXB_ROOM_TOO_SMALL));
    assert(room < 6 || memcmp(encoded, data, 6) == 0);
    memset(encoded, 0, sizeof encoded);
  }
}

static void check_many_empty(tvixb_context* context) {
  enum { COUNT = 200000 };
  uint64_t* offsets = calloc(COUNT + 1, sizeof *offsets);
  uint8_t* verdicts = malloc(COUNT);
  uint8_t* digests = malloc((size_t)COUNT * 32);
  const tvixb_results results = {verdicts, digests, NULL};
  const tvixb_kind* directory = tvixb_kind_find("tvix.castore.v1.Directory");
  assert(tvixb_check(context, directory, NULL, 0, offsets, offsets + 1, COUNT,
                     &results) == TVIXB_OK);
  for (size_t i = 1; i < COUNT; i++) {
    assert(verdicts[i] == TVIXB_CANONICAL);
    assert(memcmp(digests + i * 32, digests, 32) == 0);
  }
  free(offsets);
  free(verdicts);
  free(digests);
}

static void check_rebase(void) {
  tvixb_violations_of entry = {.message = 1, .first = 2, .kept = 3, .total = 4};
  tvixb_violations_rebase(&entry, 1, 10, 100);
  assert(entry.message == 11 && entry.first == 102);
  assert(entry.kept == 3 && entry.total == 4);
}

static void check_blake3_many(void) {
  enum { COUNT = 600 };
  uint8_t data[COUNT], digests[COUNT * 32], one[32];
  uint64_t begins[COUNT], ends[COUNT];
  for (size_t i = 0; i < COUNT; i++) {
    data[i] = (uint8_t)i;
    begins[i] = i / 2;
    ends[i] = i;
  }
  assert(tvixb_blake3_many(data, COUNT, begins, ends, COUNT, digests) ==
         TVIXB_OK);
  for (size_t i = 0; i < COUNT; i++) {
    assert(tvixb_blake3_many(data, COUNT, begins + i, ends + i, 1, one) ==
           TVIXB_OK);
    assert(memcmp(one, digests + i * 32, 32) == 0);
  }
}

// Checks the path and the message of the last violation.
static void check_message(tvixb_context* context, const void* data, size_t size,
                          const char* path, const char* words) {
  const buffer message = {(uint8_t*)data, size, size};
  uint8_t digest[32];
  check_one(context, &message, digest, NULL);
  size_t count;
  const tvixb_violation* all = tvixb_violations(context, &count);
  size_t rows;
  const tvixb_violations_of* row = tvixb_violations_by_message(context, &rows);
  assert(count > 0 && rows == 1 && row->first == 0 && row->kept == count);
  char text[300];
  assert(tvixb_violation_path(request_kind(), &all[count - 1], text,
                              sizeof text) == strlen(path));
  assert(strcmp(text, path) == 0);
  assert(tvixb_violation_message(request_kind(), &all[count - 1], text,
                                 sizeof text) == strlen(words));
  assert(strcmp(text, words) == 0);
}

#define CHECK_MESSAGE(bytes, path, words) \
  check_message(context, bytes, sizeof bytes - 1, path, words)

static void check_messages(tvixb_context* context) {
  const char* unknown =
      "expected only fields of tvix.build.v1.BuildRequest, found field 9 with "
      "wire type 5";
  // The message shows the first of two, also if another field follows them.
  CHECK_MESSAGE("\x0a\x01x\x4d\1\1\1\1\x52\0", "", unknown);
  CHECK_MESSAGE("\x4d\1\1\1\1\x52\0\x0a\x01x", "", unknown);
  CHECK_MESSAGE("\x0a\x04xy\xffz", "",
                "expected a serialized tvix.build.v1.BuildRequest, found bytes "
                "that do not decode at offset 4");
  CHECK_MESSAGE("\x0a\x01x\x12\x01x\x12\x04/\"\x7f\x1f", "outputs[1]",
                "expected keys in ascending byte order, found "
                "\"/\\\"\\x7f\\x1f\" after a greater key");
  CHECK_MESSAGE(
      "\x0a\x1a"
      "abcdefghijklmnopqrstuvwxy\0",
      "command_args[0]",
      "expected an argument without NUL, found "
      "\"abcdefghijklmnopqrstuv\"... (26 bytes)");
  CHECK_MESSAGE(
      "\x0a\x17"
      "abcdefghijklmnopqrstuv\0",
      "command_args[0]",
      "expected an argument without NUL, found "
      "\"abcdefghijklmnopqrstuv\"... (23 bytes)");
  // The first scan finds a violation before a length that is not in its
  // shortest form.
  CHECK_MESSAGE("\x0a\1\0\x12\x81\0x", "command_args[0]",
                "expected an argument without NUL, found \"\\x00\"");
  CHECK_MESSAGE(
      "\x0a\x16"
      "abcdefghijklmnopqrstu\0",
      "command_args[0]",
      "expected an argument without NUL, found "
      "\"abcdefghijklmnopqrstu\\x00\"");
}

int main(void) {
  if (level_is_missing()) return 0;
  tvixb_context* context = tvixb_context_new();
  assert(context);
  static const size_t counts[] = {2, 3, 16, 17, 33, 100, 1000, 100000};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    check_sorting(context, counts[i], 0);
    check_sorting(context, counts[i], 1 + (uint32_t)i);
  }
  check_large_elements(context);
  check_limit(context);
  check_order_of_violations(context);
  check_request(context);
  check_messages(context);
  check_bad_ranges(context);
  check_misaligned(context);
  check_batch(context);
  check_split();
  check_count();
  check_find();
  check_room(context);
  check_many_empty(context);
  check_rebase();
  check_blake3_many();
  tvixb_context_free(context);
  tvixb_context_free(NULL);
  puts("ok");
  return 0;
}
