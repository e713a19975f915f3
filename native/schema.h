// SPDX-License-Identifier: MIT
//
// The types of schemas: constant tables of kinds, messages and fields, which
// the stages interpret. schema_rows.h makes the tables from the rows in
// schema_*.h. The rules for values are in schema_rules.h, and the messages for
// codes in schema_codes.c. The stages do not refer to particular messages or
// fields, so a new kind or a new version of a schema needs only rows and test
// vectors.
#ifndef TVIXB_SCHEMA_H
#define TVIXB_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "view.h"
#include "wire.h"

// The greatest possible field number, so that a canonical tag is one byte.
#define TVIXB_FIELD_NUMBER_MAX 15

// Maximum number of sorted lists of a kind, in all its messages.
#define TVIXB_LIST_MAX 8

// Number of fields on the longest path of a kind.
#define TVIXB_DEPTH_MAX 5

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

// A rule for the values of a field. An absent value is empty or 0.
typedef struct tvixb_rule {
  const char* expected;  // description of a valid value, for messages
  // Bounds of a number, or of the size of other values in bytes.
  uint64_t min;
  uint64_t max;
  // Another check, for values of up to `extra_check_size_max` bytes; NULL:
  // none. Satisfied by an empty value if `min` is 0. This and the rest are not
  // for numbers.
  bool (*extra_check)(tvixb_view value);
  size_t extra_check_size_max;
  uint8_t code;              // tvixb_code
  uint8_t forbidden;         // bits: TVIXB_BYTES_NUL, TVIXB_BYTES_BYTE
  uint8_t byte;              // the byte for TVIXB_BYTES_BYTE
  uint8_t forbidden_prefix;  // tvixb_prefix (rules.h)
} tvixb_rule;

typedef struct tvixb_message tvixb_message;

typedef struct tvixb_field {
  const char* name;              // NULL: no field has this number
  const tvixb_message* message;  // type of a TVIXB_TYPE_MESSAGE
  const tvixb_rule* rule;        // of each value
  uint8_t tag;                   // number << 3 | wire type; 0: no such field
  uint8_t type;                  // tvixb_type
  uint8_t count;                 // tvixb_count that the number of elements sets
  uint8_t limit;   // tvixb_count that limits the numbers of a TVIXB_TYPE_PACKED
  bool repeated;   // a list, sorted or not; false for a TVIXB_TYPE_PACKED
  bool sorted;     // a sorted list
  bool unkeyed;    // a sorted list without keys: a tvixb_parallel_list
  bool oneof;      // member of the message's oneof
  bool key;        // the value is the sort key of its list element
  bool base_name;  // of a key: only the part after the last slash is the key
  bool encoded;    // of a TVIXB_TYPE_MESSAGE: protobuf has it as bytes, which
                   // hold the message and decode on their own
  bool required;   // must be present and not empty (TVIXB_CODE_REQUIRED)
  bool adds_to_total;  // the value adds to the total of the kind
  bool path_prefix;    // the value is the path prefix for the rules and
                       // relations of the fields after it
} tvixb_field;

typedef struct tvixb_scan tvixb_scan;

typedef struct tvixb_list tvixb_list;

// Scans the content of a message, `depth` messages below the root. Records its
// sorted lists in lists[0 ..]. Sets *key to the sort key in it, if there
// is one. Returns the end; NULL if the content is not in the ordinary form
// (scan.h).
typedef const uint8_t* tvixb_scan_function(tvixb_scan* scan, const uint8_t* p,
                                           const uint8_t* end, unsigned depth,
                                           tvixb_list* lists, tvixb_view* key);

// The kind of a message for a value of its selector.
typedef struct tvixb_variant {
  const char* value;  // NULL: the end of an array
  const struct tvixb_kind* kind;
} tvixb_variant;

struct tvixb_message {
  const tvixb_field* fields;  // indexed by field number; [0] is unused
  uint8_t number_max;         // the greatest field number
  uint8_t selector;           // number of the string that selects a variant
  // The variants; NULL: there are none. They differ from this message in the
  // fields of an `encoded` message and in rules. The message itself is for all
  // other values.
  const tvixb_variant* variants;
};

// Returns whether a field's absence violates a rule.
static inline bool tvixb_field_is_needed(const tvixb_field* field) {
  return field->required ||
         (!field->repeated && !field->oneof && field->rule->min);
}

// Returns whether the values of a field are numbers.
static inline bool tvixb_field_is_number(const tvixb_field* field) {
  return (field->tag & 7) == TVIXB_WIRE_VARINT ||
         field->type == TVIXB_TYPE_PACKED;
}

// Returns whether a message has a oneof. One of its members must be set.
static inline bool tvixb_message_has_oneof(const tvixb_message* message) {
  for (unsigned i = 1; i <= message->number_max; i++) {
    if (message->fields[i].oneof) return true;
  }
  return false;
}

// Returns the field with the number and wire type of a tag; NULL if the message
// has none.
static inline const tvixb_field* tvixb_message_field(
    const tvixb_message* message, uint32_t tag) {
  if (tag >> 3 > message->number_max) return NULL;
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
// `right` or of list `also`.
typedef struct tvixb_relation {
  uint8_t left;    // 1 + index of a list; violations are reported there
  uint8_t right;   // 1 + index of a list
  uint8_t also;    // 1 + index of a list; 0: none
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

// The length that a list of the root message must have: the count that the list
// sets (tvixb_field.count), as the caller gives it.
typedef struct tvixb_length_rule {
  uint8_t field;            // number of the list; 0: the kind has no such rule
  uint8_t missing_code;     // tvixb_code for elements that the list lacks
  uint8_t unexpected_code;  // tvixb_code for elements beyond the length
  const char* expected;     // the length in words, for messages
} tvixb_length_rule;

// The lists of a part of a graph.
typedef struct tvixb_part {
  uint8_t refs;        // 1 + index of the list of references to other parts
  uint8_t ref_field;   // number of the field of that list
  uint8_t ref_digest;  // number of the field of a reference: the digest of the
                       // other part
  uint8_t ref_target;  // likewise: a key of that part's list `targets`
  uint8_t targets;     // 1 + index of a list
} tvixb_part;

// The rules of a graph: a message whose elements, the parts, refer to each
// other by digest. Parts are sorted by digest, and have all the same variant.
typedef struct tvixb_graph_rule {
  const struct tvixb_kind* part;  // the kind of the parts
  uint8_t
      parts;  // number of the field of the list of parts, which is the first
  uint8_t roots;  // 1 + index of the list of digests of parts that others need
                  // not refer to
  uint8_t variant_code;         // tvixb_code for a part with another variant
  uint8_t unknown_code;         // for a digest that no part has
  uint8_t unknown_target_code;  // for a key that the other part lacks
  uint8_t unreached_code;       // for a part that no root needs
} tvixb_graph_rule;

struct tvixb_kind {
  const char* name;  // full protobuf name of the root message
  const tvixb_message* message;
  // Scans a message. Returns its end; NULL if it is not in the ordinary form.
  const uint8_t* (*scan)(tvixb_scan* scan, const uint8_t* p,
                         const uint8_t* end);
  const tvixb_relation* relations;
  uint8_t relation_count;
  uint8_t list_count;
  bool shared_keys;  // keys must be unique across all lists
  // Has a TVIXB_TYPE_PACKED field, whose packed form may be longer.
  bool packed_lists;
  // A bit for each tvixb_count that limits a list and that only the caller can
  // give, because no list sets it.
  uint8_t caller_counts;
  // tvixb_code if the total does not fit 64 bits: the sum of the adds_to_total
  // fields and the number of elements of the sorted lists. 0: there is no
  // total.
  uint8_t overflow_code;
  tvixb_parallel_list parallel;
  tvixb_length_rule length;
  tvixb_part part;                // of a kind whose messages are parts
  const tvixb_graph_rule* graph;  // NULL: the messages are not graphs
};

// The part of a violation that its message shows.
typedef enum tvixb_shown {
  TVIXB_SHOWN_VALUE = 0,  // the value or key, quoted
  TVIXB_SHOWN_HEX,        // the value or key, in hexadecimal
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
#define TVIXB_CODE_COUNT (TVIXB_CODE_UNREACHABLE_STEP + 1)
extern const tvixb_code_row tvixb_codes[];

// The schemas for each CPU level, which differ only in their scan functions. A
// schema is an array of kinds; a kind without a name ends it. NULL ends the
// array of schemas.
extern const struct tvixb_kind* const tvixb_schemas_plain[];
#ifdef TVIXB_HAVE_AVX2
extern const struct tvixb_kind* const tvixb_schemas_avx2[];
#endif
#ifdef TVIXB_HAVE_AVX512
extern const struct tvixb_kind* const tvixb_schemas_avx512[];
#endif

#endif  // TVIXB_SCHEMA_H
