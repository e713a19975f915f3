// SPDX-License-Identifier: MIT
//
// The types of schemas: constant tables of kinds, messages and fields, which
// the stages interpret. The tables are in schema_*.h, their rules for values in
// schema_rules.h, and the messages for codes in schema_codes.c. The stages do
// not refer to particular messages or fields, so a new kind or a new version of
// a schema needs only a table and test vectors.
#ifndef TVIXB_SCHEMA_H
#define TVIXB_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "view.h"
#include "wire.h"

// The greatest field number of any message. It must be at most 15, so that a
// canonical tag is one byte. TVIXB_SCAN_MESSAGE has a line for each number.
#define TVIXB_FIELD_NUMBER_MAX 10

// Maximum number of sorted lists of a kind, in all its messages. Lists are
// numbered in the order in which they are encoded.
#define TVIXB_LIST_MAX 8

// Number of fields on the longest path of a kind.
#define TVIXB_DEPTH_MAX 4

// The counts of list elements on which rules depend. The scan counts the
// elements, or the caller gives the count (tvixb_kind).
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
  // A list of ascending numbers. Its canonical form is packed; the input may
  // have it in several pieces, packed or not.
  TVIXB_TYPE_PACKED,
} tvixb_type;

// The wire type of each type.
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
  const tvixb_message* message;  // type of a TVIXB_TYPE_MESSAGE
  uint8_t tag;                   // number << 3 | wire type; 0: no such field
  uint8_t type;                  // tvixb_type
  // tvixb_rule (schema_rules.h) of each value. For a TVIXB_TYPE_PACKED, the
  // rule that a number violates if it is not less than the limit.
  uint8_t rule;
  uint8_t list;   // 1 + index of the sorted list in its kind; 0: not sorted
  uint8_t count;  // tvixb_count that the number of elements sets
  uint8_t limit;  // tvixb_count that limits the numbers of a TVIXB_TYPE_PACKED
  bool repeated;  // a list, sorted or not; false for a TVIXB_TYPE_PACKED
  bool unkeyed;   // a sorted list without keys: a tvixb_parallel_list
  bool path_prefix;    // the value is the path prefix for the rules and
                       // relations of the fields after it
  bool oneof;          // member of the message's oneof
  bool key;            // the value is the sort key of its list element
  bool adds_to_total;  // the value adds to the total of the kind
  bool required;       // must be present and not empty (TVIXB_CODE_REQUIRED)
} tvixb_field;

typedef struct tvixb_scan tvixb_scan;

// Scans the content of a message, `depth` messages below the root. Sets *key to
// the sort key in it, if there is one. Returns the end; NULL if the content is
// not in the ordinary form (scan.h).
typedef const uint8_t* tvixb_scan_function(tvixb_scan* scan, const uint8_t* p,
                                           const uint8_t* end, unsigned depth,
                                           tvixb_view* key);

struct tvixb_message {
  // Indexed by field number; [0] is unused.
  tvixb_field fields[TVIXB_FIELD_NUMBER_MAX + 1];
  tvixb_scan_function* scan;  // made from this table by scan_message.h
  // A bit for each field number: fields whose absence violates a rule.
  uint16_t needed;
  // A bit for each field number: members of the oneof. One must be set.
  uint16_t oneof;
};

// Returns the field with the number and wire type of a tag; NULL if the message
// has none.
static inline const tvixb_field* tvixb_message_field(
    const tvixb_message* message, uint32_t tag) {
  if (tag >> 3 > TVIXB_FIELD_NUMBER_MAX) return NULL;
  const tvixb_field* field = &message->fields[tag >> 3];
  if (!field->tag) return NULL;
  // A list of numbers may also be unpacked.
  bool single = field->type == TVIXB_TYPE_PACKED &&
                tag == (tag >> 3 << 3 | TVIXB_WIRE_VARINT);
  return field->tag == tag || single ? field : NULL;
}

// The part of a key of list `left` that is compared with the keys of list
// `right`.
typedef enum tvixb_match {
  TVIXB_MATCH_KEY = 0,  // the whole key
  // The part after the path prefix and a slash; a key without them matches no
  // key. The whole key if the path prefix is empty.
  TVIXB_MATCH_BELOW_PREFIX,
  // The part after the last slash.
  TVIXB_MATCH_BASE_NAME,
} tvixb_match;

// A relation: keys of list `left` must be, or must not be, keys of list
// `right`.
typedef struct tvixb_relation {
  uint8_t left;    // 1 + index of a list; violations are reported there
  uint8_t right;   // 1 + index of a list
  bool forbidden;  // keys of `left` must not be keys of `right`; else they must
  uint8_t code;    // tvixb_code for keys of `left` that violate the relation
  uint8_t match;   // tvixb_match
  // With TVIXB_MATCH_BASE_NAME: tvixb_code for keys of `right` that match no
  // key of `left`, reported at `right`.
  uint8_t unmatched_code;
} tvixb_relation;

// A list that is parallel to another: element i of `list` belongs to element i
// of `keyed_list`. `list` must be empty or as long as `keyed_list`, and gets
// the same order.
typedef struct tvixb_parallel_list {
  uint8_t list;        // 1 + index of a list; 0: the kind has no parallel list
  uint8_t keyed_list;  // 1 + index of a list
  uint8_t code;        // tvixb_code for a wrong length
} tvixb_parallel_list;

// The length that a list of the root message must have, which the caller gives.
typedef struct tvixb_length_rule {
  uint8_t field;         // number of the list; 0: the kind has no such rule
  uint8_t count;         // tvixb_count of the field and of the caller's count
  uint8_t missing_code;  // tvixb_code for elements that the list lacks
  uint8_t unexpected_code;  // tvixb_code for elements beyond the length
  const char* expected;     // the length in words, for messages
} tvixb_length_rule;

struct tvixb_kind {
  const char* name;  // full protobuf name of the root message
  const tvixb_message* message;
  const tvixb_relation* relations;
  uint8_t relation_count;
  uint8_t list_count;
  bool shared_keys;  // keys must be unique across all lists
  // Has a TVIXB_TYPE_PACKED field, whose packed form may be longer.
  bool packed_lists;
  // tvixb_code if the total does not fit 64 bits: the sum of the adds_to_total
  // fields and the number of elements of the sorted lists. 0: there is no
  // total.
  uint8_t overflow_code;
  uint8_t caller_count;  // tvixb_count that the caller gives
  tvixb_parallel_list parallel;
  tvixb_length_rule length;
};

// The part of a violation that its message shows.
typedef enum tvixb_shown {
  TVIXB_SHOWN_VALUE = 0,  // the value or key, quoted
  TVIXB_SHOWN_NUMBER,
  TVIXB_SHOWN_NOTHING,
} tvixb_shown;

// The message of a violation: `before`, the part that is shown, `after`.
typedef struct tvixb_code_row {
  const char* name;    // stable
  const char* before;  // NULL: "expected ... found" with the field's rule
  const char* after;   // may be NULL
  uint8_t shown;       // tvixb_shown
} tvixb_code_row;

// Indexed by tvixb_code; TVIXB_CODE_COUNT rows.
#define TVIXB_CODE_COUNT (TVIXB_CODE_NEEDLES_MISMATCH + 1)
extern const tvixb_code_row tvixb_codes[];

// The kinds of the schemas. The tables for different CPU levels differ only in
// their scan functions. A kind without a name ends each table.
extern const struct tvixb_kind tvixb_schema_tvix_build_v1[];
extern const struct tvixb_kind tvixb_schema_snix_build_v1[];
#ifdef TVIXB_HAVE_AVX2
extern const struct tvixb_kind tvixb_schema_tvix_build_v1_avx2[];
extern const struct tvixb_kind tvixb_schema_snix_build_v1_avx2[];
#endif
#ifdef TVIXB_HAVE_AVX512
extern const struct tvixb_kind tvixb_schema_tvix_build_v1_avx512[];
extern const struct tvixb_kind tvixb_schema_snix_build_v1_avx512[];
#endif

#endif  // TVIXB_SCHEMA_H
