// SPDX-License-Identifier: MIT
//
// The shape of a schema: constant tables of kinds, messages and fields. All
// stages are driven by them and know no message by name; a new kind or a later
// version of the schema is a new table (schema_*.h) and its vectors.
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

// What is counted in a message, because other values depend on it.
typedef enum tvixb_count {
  TVIXB_COUNT_NONE = 0,
  TVIXB_COUNT_NEEDLES,  // of a request: indices must be below it
  TVIXB_COUNT_OUTPUTS,  // of an answer that does not say their names
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

// What a value must be; rules.c has the test and the words for each.
typedef enum tvixb_rule {
  TVIXB_RULE_NONE = 0,
  TVIXB_RULE_ARGUMENT,
  TVIXB_RULE_NAME,
  TVIXB_RULE_DIGEST,
  TVIXB_RULE_SYMLINK_TARGET,
  TVIXB_RULE_ENV_KEY,
  TVIXB_RULE_ENV_VALUE,
  TVIXB_RULE_RO_PATH,
  TVIXB_RULE_NO_NAME,
  TVIXB_RULE_FOLDER,
  TVIXB_RULE_RELATIVE_PATH,
  TVIXB_RULE_FILE_PATH,
  TVIXB_RULE_HOST_PATH,
  TVIXB_RULE_NEEDLE,
  TVIXB_RULE_COUNT,
} tvixb_rule;

typedef struct tvixb_message tvixb_message;

typedef struct tvixb_field {
  const char* name;
  const tvixb_message* message;  // of a TVIXB_TYPE_MESSAGE
  uint8_t tag;                   // number << 3 | wire type; 0: no such field
  uint8_t type;                  // tvixb_type
  uint8_t rule;                  // tvixb_rule of each value
  uint8_t list;   // 1 + index of the sorted list in its kind; 0: not sorted
  uint8_t count;  // tvixb_count that its elements are
  bool repeated;  // a list, sorted or not; false for a TVIXB_TYPE_PACKED
  bool follows;   // its list has no keys: the order is that of another list
  bool base;      // the folder that paths which follow are outside of or below
  bool oneof;     // member of the message's oneof
  bool key;       // its value is the sort key of the element that holds it
  bool size;      // its value adds to the size of a Directory
  bool required;  // must be there and not empty (TVIXB_CODE_REQUIRED)
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
  // What follows the base and a slash; keys that do not begin so match none.
  // The whole key, if the base is empty.
  TVIXB_MATCH_BELOW_BASE,
  // What follows the last slash.
  TVIXB_MATCH_BASE_NAME,
} tvixb_match;

// Each key of list `left` must be (or must not be) a key of list `right`.
typedef struct tvixb_relation {
  uint8_t left;   // 1 + index of a list; violations are reported there
  uint8_t right;  // likewise
  bool present;   // the violation is that the key is there (else: is not)
  uint8_t code;   // tvixb_code
  uint8_t match;  // tvixb_match
  // TVIXB_MATCH_BASE_NAME: the tvixb_code for keys of `right` that are none of
  // `left`, reported at `right`.
  uint8_t converse;
} tvixb_relation;

// Two lists, the elements of one belonging to those of the other: it is as
// long, or empty, and its order is that of the other. 1 + indices; 0: none.
typedef struct tvixb_companion {
  uint8_t list;
  uint8_t leader;
} tvixb_companion;

struct tvixb_kind {
  const char* name;  // full protobuf name of the root message
  const tvixb_message* message;
  const tvixb_relation* relations;
  uint8_t relation_count;
  uint8_t list_count;
  bool directory;  // one set of keys over all lists; its size must fit 64 bits
  bool packed;     // has a TVIXB_TYPE_PACKED, whose packed form may be longer
  bool answer;     // to a request that it does not hold: field 1 is its outputs
  tvixb_companion companion;
};

// The kinds of the schemas, by level of the CPU: their scan functions differ,
// nothing else. A kind without a name ends each table.
extern const struct tvixb_kind tvixb_schema_tvix_build_v1[];
extern const struct tvixb_kind tvixb_schema_snix_build_v1[];
#ifdef TVIXB_HAVE_AVX512
extern const struct tvixb_kind tvixb_schema_tvix_build_v1_avx512[];
extern const struct tvixb_kind tvixb_schema_snix_build_v1_avx512[];
#endif

#endif  // TVIXB_SCHEMA_H
