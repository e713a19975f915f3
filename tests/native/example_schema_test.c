// SPDX-License-Identifier: MIT
//
// A schema that only this file has: its rules, messages and kind. The stages
// check its messages without a change. It has what no other schema has: rules
// for numbers, numbers in a oneof, a field number above 10, an embedded message
// whose first list is the fifth of the kind.
#include <stdio.h>

#include "build.h"
#include "schema_check.h"
#include "schema_rows.h"

static const tvixb_number_rule tvixb_rule_accepted = {
    .number = {.code = TVIXB_CODE_INVALID_ARG,
               .expected = "an accepted license",
               .min = 1,
               .max = 1}};

static const tvixb_number_rule tvixb_rule_percent = {
    .number = {.code = TVIXB_CODE_INVALID_ARG,
               .expected = "at most 100 percent",
               .max = 100}};

#define INGREDIENT(F)           \
  F(1, KEY, STRING, name, name) \
  F(2, SINGLE, UINT64, share, percent)
TVIXB_MESSAGE(ingredient, INGREDIENT)

#define AMOUNT(F)                     \
  F(1, ONEOF, UINT64, grams, none)    \
  F(2, ONEOF, UINT64, share, percent) \
  F(3, ONEOF, BOOL, unlimited, none)
TVIXB_MESSAGE(amount, AMOUNT)

#define NOTES(F)                    \
  F(1, SINGLE, STRING, title, none) \
  F(2, SORTED, STRING, readers, name)
TVIXB_MESSAGE(notes, NOTES)

#define RECIPE(F)                                 \
  F(1, SORTED, STRING, tools, name)               \
  F(2, SORTED, MESSAGE(ingredient), bought, none) \
  F(3, SORTED, BYTES, tags, name)                 \
  F(4, SORTED, MESSAGE(ingredient), grown, none)  \
  F(5, SINGLE, MESSAGE(notes), notes, none)       \
  F(11, SINGLE, BOOL, licensed, accepted)         \
  F(15, SINGLE, MESSAGE(amount), amount, none)
TVIXB_MESSAGE(recipe, RECIPE)

static const tvixb_relation relations[] = {
    {.left = TVIXB_LIST(recipe, bought),
     .right = TVIXB_LIST(recipe, grown),
     .forbidden = true,
     .code = TVIXB_CODE_DUPLICATE},
    {.left = TVIXB_LIST(recipe, notes.readers),
     .right = TVIXB_LIST(recipe, tags),
     .code = TVIXB_CODE_MISSING_OUTPUT},
};

static const tvixb_kind kind =
    TVIXB_KIND("example.Recipe", recipe, TVIXB_RELATIONS(relations));

static_assert(TVIXB_LIST(recipe, notes.readers) == 5, "the fifth list");

#define LICENSED "\x58\x01"

typedef struct result {
  tvixb_verdict verdict;
  uint64_t violations;
  char path[64], message[128];  // of the first violation
  uint8_t encoding[256];
  size_t size;
} result;

static result check(const char* bytes, size_t size) {
  result found = {0};
  uint8_t verdict, digest[TVIXB_DIGEST_SIZE];
  uint64_t begin = 0, end = size, encoding_end = 0;
  tvixb_encodings encodings = {found.encoding, sizeof found.encoding,
                               &encoding_end, 0};
  tvixb_results results = {&verdict, digest, &encodings};
  tvixb_context* context = tvixb_context_new();
  assert(context);
  assert(!tvixb_check(context, &kind, (const uint8_t*)bytes, size, &begin, &end,
                      1, &results));
  found.verdict = verdict;
  found.size = encoding_end;
  size_t count;
  const tvixb_violations_of* entry =
      tvixb_violations_by_message(context, &count);
  if (count) {
    found.violations = entry->total;
    const tvixb_violation* first = tvixb_violations(context, &count);
    tvixb_violation_path(&kind, first, found.path, sizeof found.path);
    tvixb_violation_message(&kind, first, found.message, sizeof found.message);
  }
  tvixb_context_free(context);
  return found;
}

static void expect(const char* bytes, size_t size, tvixb_verdict verdict,
                   const char* path, const char* message) {
  result found = check(bytes, size);
  if (found.verdict != verdict || strcmp(found.path, path) ||
      strcmp(found.message, message)) {
    printf("found %d, \"%s\", \"%s\"\n", found.verdict, found.path,
           found.message);
    abort();
  }
  assert(found.violations == (*message != 0));
}

#define EXPECT(bytes, verdict, path, message) \
  expect(bytes, sizeof(bytes) - 1, verdict, path, message)

static void check_numbers(void) {
  EXPECT(LICENSED, TVIXB_CANONICAL, "", "");
  EXPECT("", TVIXB_INVALID, "licensed",
         "expected an accepted license, found false");
  EXPECT("\x58\x00", TVIXB_INVALID, "licensed",
         "expected an accepted license, found false");
  EXPECT("\x58\x07", TVIXB_VALID, "", "");
  EXPECT("\x12\x05\x0a\x01m\x10\x64" LICENSED, TVIXB_CANONICAL, "", "");
  EXPECT("\x12\x05\x0a\x01m\x10\x65" LICENSED, TVIXB_INVALID, "bought[0].share",
         "expected at most 100 percent, found 101");
}

static void check_oneof(void) {
  EXPECT(LICENSED "\x7a\x02\x08\x00", TVIXB_CANONICAL, "", "");
  EXPECT(LICENSED "\x7a\x02\x18\x00", TVIXB_CANONICAL, "", "");
  EXPECT(LICENSED "\x7a\x02\x10\x65", TVIXB_INVALID, "amount.share",
         "expected at most 100 percent, found 101");
  EXPECT(LICENSED "\x7a\x04\x10\x65\x18\x01", TVIXB_VALID, "", "");
  EXPECT(LICENSED "\x7a\x00", TVIXB_INVALID, "amount",
         "expected one of grams, share, unlimited to be set, found none");
}

static void check_lists(void) {
  static const char sorted[] = "\x1a\x01p\x1a\x01q\x2a\x06\x12\x01p\x12\x01q";
  static const char unsorted[] = "\x1a\x01q\x1a\x01p\x2a\x06\x12\x01q\x12\x01p";
  buffer message = {0};
  buffer_add(&message, unsorted, sizeof unsorted - 1);
  buffer_add(&message, LICENSED, 2);
  result found = check((const char*)message.data, message.size);
  assert(found.verdict == TVIXB_UNSORTED && found.violations == 2);
  assert(!strcmp(found.path, "tags[1]"));
  assert(found.size == message.size);
  assert(!memcmp(found.encoding, sorted, sizeof sorted - 1));
  free(message.data);
  EXPECT("\x2a\x03\x12\x01p" LICENSED "\x7a\x02\x08\x01", TVIXB_INVALID,
         "notes.readers[0]",
         "expected a node for each output of the request, found none for "
         "\"p\"");
  EXPECT("\x12\x03\x0a\x01m\x22\x03\x0a\x01m" LICENSED, TVIXB_INVALID,
         "bought[0]", "expected unique keys, found duplicate \"m\"");
}

int main(void) {
  schema_check(&kind);
  check_numbers();
  check_oneof();
  check_lists();
  puts("ok");
  return 0;
}
