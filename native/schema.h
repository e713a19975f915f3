// SPDX-License-Identifier: MIT
//
// The shape of a schema: constant tables of kinds, messages and fields, which
// the stages interpret. The tables are in schema_*.h; their rules for values
// are in schema_rules.h, the words for codes in schema_codes.c. No stage names
// a message or a field: a new kind or a later version of the schema is a new
// table and its vectors.
#ifndef TVIXB_SCHEMA_H
#define TVIXB_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "view.h"
#include "wire.h"

// The largest field number of any message; up to 15 a canonical tag is one
// byte. TVIXB_SCAN_MESSAGE has a line for each.
#define TVIXB_FIELD_NUMBER_MAX 10

// Sorted lists in a kind, counted over its whole tree of messages, in the order
// in which they are encoded.
#define TVIXB_LIST_MAX 8

// Fields on the longest path of a kind.
#define TVIXB_DEPTH_MAX 4

// Numbers of list elements on which rules depend. The scan counts them, or the
// caller gives them (tvixb_kind).
typedef enum tvixb_count {
  TVIXB_COUNT_NONE = 0,
  TVIXB_COUNT_NEEDLES,  // refscan_needles of a request
  TVIXB_COUNT_OUTPUTS,  // outputs of a BuildResponse and of its request
  TVIXB_COUNTS,
} tvixb_count;

typedef enum tvixb_type {
  TVIXB_TYPE_NONE = 0,  // no field has this number
  TVIXB_TYPE_UINT64,
  TVIXB_TYPE_BOOL,
  TVIXB_TYPE_BYTES,
  TVIXB_TYPE_STRING,
  TVIXB_TYPE_MESSAGE,
  // Indices, ascending: one list, whatever pieces it comes in. Its canonical
  // form is one packed piece.
  TVIXB_TYPE_PACKED,
} tvixb_type;

// The wire type of each.
enum {
  TVIXB_TYPE_UINT64_WIRE = TVIXB_WIRE_VARINT,
  TVIXB_TYPE_BOOL_WIRE = TVIXB_WIRE_VARINT,
  TVIXB_TYPE_BYTES_WIRE = TVIXB_WIRE_LENGTH,
  TVIXB_TYPE_STRING_WIRE = TVIXB_WIRE_LENGTH,
  TVIXB_TYPE_MESSAGE_WIRE = TVIXB_WIRE_LENGTH,
  TVIXB_TYPE_PACKED_WIRE = TVIXB_WIRE_LENGTH,
};

typedef struct tvixb_message tvixb_message;

typedef struct tvixb_field {
  const char* name;
  const tvixb_message* message;  // of a TVIXB_TYPE_MESSAGE
  uint8_t tag;                   // number << 3 | wire type; 0: no such field
  uint8_t type;                  // tvixb_type
  // tvixb_rule (schema_rules.h) of each value; of a TVIXB_TYPE_PACKED, the rule
  // of numbers that are not below the limit.
  uint8_t rule;
  uint8_t list;   // 1 + index of the sorted list in its kind; 0: not sorted
  uint8_t count;  // tvixb_count that the number of its elements is
  uint8_t limit;  // tvixb_count that numbers of a TVIXB_TYPE_PACKED are below
  bool repeated;  // a list, sorted or not; false for a TVIXB_TYPE_PACKED
  bool unkeyed;   // its sorted list has no keys: it is a tvixb_parallel_list
  bool path_prefix;    // its value is the path prefix that rules and relations
                       // of the fields behind it refer to
  bool oneof;          // member of the message's oneof
  bool key;            // its value is the sort key of the element that holds it
  bool adds_to_total;  // its value adds to the total of the kind
  bool required;       // must be present and not empty (TVIXB_CODE_REQUIRED)
} tvixb_field;

typedef struct tvixb_scan tvixb_scan;

// Scans the content of a message, `depth` messages below the root. Returns its
// end, NULL if it is not in the ordinary form (scan.h).
typedef const uint8_t* tvixb_scan_function(tvixb_scan* scan, const uint8_t* p,
                                           const uint8_t* end, unsigned depth,
                                           tvixb_view* key);

struct tvixb_message {
  // Indexed by field number; [0] is a hole.
  tvixb_field fields[TVIXB_FIELD_NUMBER_MAX + 1];
  tvixb_scan_function* scan;  // made from this table by scan_message.h
  // Bits by field number: the absence of these violates a rule.
  uint16_t needed;
  // Bits by field number: the members of the oneof, of which one must be set.
  uint16_t oneof;
};

// The field with a tag's number and wire type, NULL if the message has none.
static inline const tvixb_field* tvixb_message_field(
    const tvixb_message* message, uint32_t tag) {
  if (tag >> 3 > TVIXB_FIELD_NUMBER_MAX) return NULL;
  const tvixb_field* field = &message->fields[tag >> 3];
  if (!field->tag) return NULL;
  // A list of numbers is read packed and one by one.
  bool single = field->type == TVIXB_TYPE_PACKED &&
                tag == (tag >> 3 << 3 | TVIXB_WIRE_VARINT);
  return field->tag == tag || single ? field : NULL;
}

// How keys of list `left` are compared with those of list `right`.
typedef enum tvixb_match {
  TVIXB_MATCH_KEY = 0,
  // What follows the path prefix and a slash; keys that do not begin with them
  // match none. The whole key, if the path prefix is empty.
  TVIXB_MATCH_BELOW_PREFIX,
  // What follows the last slash.
  TVIXB_MATCH_BASE_NAME,
} tvixb_match;

// Whether keys of list `left` must be, or must not be, keys of list `right`.
typedef struct tvixb_relation {
  uint8_t left;    // 1 + index of a list; violations are reported there
  uint8_t right;   // likewise
  bool forbidden;  // a key of `left` must not be a key of `right` (else: must)
  uint8_t code;    // tvixb_code of keys of `left` that violate it
  uint8_t match;   // tvixb_match
  // TVIXB_MATCH_BASE_NAME: the tvixb_code of keys of `right` that match no key
  // of `left`, reported at `right`.
  uint8_t unmatched_code;
} tvixb_relation;

// Two lists, each element of one belonging to the element of the other that has
// the same index: `list` is as long as `keyed_list`, or empty, and is sorted as
// that one is. 1 + indices of lists; 0: the kind has no such lists.
typedef struct tvixb_parallel_list {
  uint8_t list;
  uint8_t keyed_list;
  uint8_t code;  // tvixb_code of another length
} tvixb_parallel_list;

// The length that a list of the root message must have: the caller gives it.
typedef struct tvixb_length_rule {
  uint8_t field;  // number of the list; 0: the kind has no such rule
  uint8_t count;  // tvixb_count, of the field and of what the caller gives
  uint8_t missing_code;     // tvixb_code of elements that the list lacks
  uint8_t unexpected_code;  // tvixb_code of elements beyond the length
  const char* expected;     // words for the elements, behind their number
} tvixb_length_rule;

struct tvixb_kind {
  const char* name;  // full protobuf name of the root message
  const tvixb_message* message;
  const tvixb_relation* relations;
  uint8_t relation_count;
  uint8_t list_count;
  bool shared_keys;  // the keys of all its lists are one set
  bool
      packed_lists;  // has a TVIXB_TYPE_PACKED, whose packed form may be longer
  // tvixb_code if its total, the values that add to it and the number of
  // elements of its sorted lists, does not fit 64 bits; 0: it has no total.
  uint8_t overflow_code;
  uint8_t caller_count;  // tvixb_count that is not in it: the caller gives it
  tvixb_parallel_list parallel;
  tvixb_length_rule length;
};

// What of a violation its message shows behind the words of its code.
typedef enum tvixb_shown {
  TVIXB_SHOWN_VALUE = 0,  // the value or key, quoted
  TVIXB_SHOWN_NUMBER,
  TVIXB_SHOWN_NOTHING,
} tvixb_shown;

// How a message is made of a violation: "expected ", the words, what is shown.
typedef struct tvixb_code_row {
  const char* name;    // stable
  const char* words;   // NULL: what the rule of the field expects
  const char* behind;  // words behind what is shown; may be NULL
  uint8_t shown;       // tvixb_shown
} tvixb_code_row;

// Indexed by tvixb_code; TVIXB_CODE_COUNT rows.
#define TVIXB_CODE_COUNT (TVIXB_CODE_NEEDLES_MISMATCH + 1)
extern const tvixb_code_row tvixb_codes[];

// The kinds of the schemas, by level of the CPU: their scan functions differ,
// nothing else. A kind without a name ends each table.
extern const struct tvixb_kind tvixb_schema_tvix_build_v1[];
extern const struct tvixb_kind tvixb_schema_snix_build_v1[];
#ifdef TVIXB_HAVE_AVX512
extern const struct tvixb_kind tvixb_schema_tvix_build_v1_avx512[];
extern const struct tvixb_kind tvixb_schema_snix_build_v1_avx512[];
#endif

#endif  // TVIXB_SCHEMA_H
