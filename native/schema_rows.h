// SPDX-License-Identifier: MIT
//
// Makes the tables of a schema from rows: a row for each field, a list of rows
// for each message. Everything else is derived from the rows: the scan
// function, the indices of lists, and the constants of a kind. Rows that no
// table can have do not compile.
//
//   #define ENV_VAR(F)
//     F(1, KEY, STRING, key, env_key)
//     F(2, SINGLE, BYTES, value, env_value)
//
//   TVIXB_MESSAGE(env_var, ENV_VAR)
//
// A row has a number, label, type, name and rule, and then any other members of
// tvixb_field. Rows are in ascending order of their numbers. The rules are in
// schema_rules.h (`none`: no rule). The types are those of tvixb_type. MESSAGE
// has an argument, a message that is defined before, and PART has one, the
// message of parts of a graph (tvixb_graph_rule); PACKED has one, the
// tvixb_count that limits the numbers. The labels are:
//   SINGLE          not a list
//   KEY             not a list; the sort key of the list element
//   ONEOF           a member of the message's oneof
//   REPEATED        a list, whose order has a meaning
//   COUNTED(count)  a REPEATED whose number of elements sets a tvixb_count
//   SORTED          a list that is sorted by its values, or by their keys
//   PARALLEL        a list with the order of another one (tvixb_parallel_list)
#ifndef TVIXB_SCHEMA_ROWS_H
#define TVIXB_SCHEMA_ROWS_H

#include <assert.h>
#include <stddef.h>

#include "scan_message.h"
#include "schema.h"
#include "schema_rules.h"

#define TVIXB_PASTE(a, b) TVIXB_PASTE_(a, b)
#define TVIXB_PASTE_(a, b) a##b

// For each type: its members of tvixb_field; its wire type; the member of a
// rule that is for this type; the labels that it can have; the message whose
// constants its value has; and the counts that limit it.
#define TVIXB_SET_UINT64 .type = TVIXB_TYPE_UINT64
#define TVIXB_SET_BOOL .type = TVIXB_TYPE_BOOL
#define TVIXB_SET_BYTES .type = TVIXB_TYPE_BYTES
#define TVIXB_SET_STRING .type = TVIXB_TYPE_STRING
#define TVIXB_SET_MESSAGE(of) .type = TVIXB_TYPE_MESSAGE, .message = &of
#define TVIXB_SET_PART(of) .type = TVIXB_TYPE_MESSAGE, .message = &of
#define TVIXB_SET_PACKED(count) .type = TVIXB_TYPE_PACKED, .limit = count

#define TVIXB_WIRE_OF_UINT64 TVIXB_WIRE_VARINT
#define TVIXB_WIRE_OF_BOOL TVIXB_WIRE_VARINT
#define TVIXB_WIRE_OF_BYTES TVIXB_WIRE_LENGTH
#define TVIXB_WIRE_OF_STRING TVIXB_WIRE_LENGTH
#define TVIXB_WIRE_OF_MESSAGE(of) TVIXB_WIRE_LENGTH
#define TVIXB_WIRE_OF_PART(of) TVIXB_WIRE_LENGTH
#define TVIXB_WIRE_OF_PACKED(count) TVIXB_WIRE_LENGTH

#define TVIXB_RULE_OF_UINT64 number
#define TVIXB_RULE_OF_BOOL number
#define TVIXB_RULE_OF_BYTES bytes
#define TVIXB_RULE_OF_STRING bytes
#define TVIXB_RULE_OF_MESSAGE(of) message
#define TVIXB_RULE_OF_PART(of) message
#define TVIXB_RULE_OF_PACKED(count) number

enum {
  TVIXB_IS_SINGLE = 1,
  TVIXB_IS_KEY = 2,
  TVIXB_IS_ONEOF = 4,
  TVIXB_IS_LIST = 8,
};
#define TVIXB_LABELS_OF_UINT64 (TVIXB_IS_SINGLE | TVIXB_IS_ONEOF)
#define TVIXB_LABELS_OF_BOOL (TVIXB_IS_SINGLE | TVIXB_IS_ONEOF)
#define TVIXB_LABELS_OF_BYTES UINT32_MAX
#define TVIXB_LABELS_OF_STRING UINT32_MAX
#define TVIXB_LABELS_OF_MESSAGE(of) \
  (TVIXB_IS_SINGLE | TVIXB_IS_ONEOF | TVIXB_IS_LIST)
#define TVIXB_LABELS_OF_PART(of) TVIXB_IS_LIST
#define TVIXB_LABELS_OF_PACKED(count) TVIXB_IS_SINGLE

struct tvixb_scalar_lists {};
enum {
  tvixb_scalar_depths = 1,
  tvixb_scalar_counted = 0,
  tvixb_scalar_limits = 0,
};
#define tvixb_scalar_scan NULL
#define tvixb_scalar_scan_inline NULL
// Parts are scanned on their own, so a graph has none of their lists. Their
// paths have one field less than the longest ones.
struct tvixb_part_lists {};
enum { tvixb_part_depths = 1 << (TVIXB_DEPTH_MAX - 1), tvixb_part_counted = 0 };
#define tvixb_part_scan NULL
#define tvixb_part_scan_inline tvixb_scan_part
#define TVIXB_IN_UINT64 tvixb_scalar
#define TVIXB_IN_BOOL tvixb_scalar
#define TVIXB_IN_BYTES tvixb_scalar
#define TVIXB_IN_STRING tvixb_scalar
#define TVIXB_IN_MESSAGE(of) of
#define TVIXB_IN_PART(of) tvixb_part
#define TVIXB_IN_PACKED(count) tvixb_scalar

#define TVIXB_LIMITS_UINT64 0
#define TVIXB_LIMITS_BOOL 0
#define TVIXB_LIMITS_BYTES 0
#define TVIXB_LIMITS_STRING 0
#define TVIXB_LIMITS_MESSAGE(of) of##_limits
#define TVIXB_LIMITS_PART(of) 0
#define TVIXB_LIMITS_PACKED(count) 1 << (count)

// For each label: its members of tvixb_field; its bit; its member of
// MESSAGE_lists; and the count that it sets.
#define TVIXB_LABEL_SINGLE
#define TVIXB_LABEL_KEY .key = true,
#define TVIXB_LABEL_ONEOF .oneof = true,
#define TVIXB_LABEL_REPEATED .repeated = true,
#define TVIXB_LABEL_COUNTED(set) .repeated = true, .count = set,
#define TVIXB_LABEL_SORTED .repeated = true, .sorted = true,
#define TVIXB_LABEL_PARALLEL .repeated = true, .sorted = true, .unkeyed = true,

#define TVIXB_IS_REPEATED TVIXB_IS_LIST
#define TVIXB_IS_COUNTED(set) TVIXB_IS_LIST
#define TVIXB_IS_SORTED TVIXB_IS_LIST
#define TVIXB_IS_PARALLEL TVIXB_IS_LIST

#define TVIXB_LISTS_SINGLE(lists_in) lists_in
#define TVIXB_LISTS_KEY(lists_in) lists_in
#define TVIXB_LISTS_ONEOF(lists_in) lists_in
#define TVIXB_LISTS_REPEATED(lists_in) struct tvixb_scalar_lists
#define TVIXB_LISTS_COUNTED(set) TVIXB_LISTS_REPEATED
#define TVIXB_LISTS_SORTED(lists_in) char
#define TVIXB_LISTS_PARALLEL(lists_in) char

#define TVIXB_COUNTED_SINGLE 0
#define TVIXB_COUNTED_KEY 0
#define TVIXB_COUNTED_ONEOF 0
#define TVIXB_COUNTED_REPEATED 0
#define TVIXB_COUNTED_COUNTED(set) 1 << (set)
#define TVIXB_COUNTED_SORTED 0
#define TVIXB_COUNTED_PARALLEL 0

// A constant of the message that is the value of a field.
#define TVIXB_FACT(type, fact) TVIXB_PASTE(TVIXB_IN_##type, fact)

// What a row adds to each definition of TVIXB_MESSAGE.
#define TVIXB_ROW_LISTS(number, label, type, name, ...) \
  TVIXB_LISTS_##label(struct TVIXB_FACT(type, _lists)) name;
#define TVIXB_ROW_DEPTHS(number, label, type, ...) \
  | TVIXB_FACT(type, _depths) << 1
#define TVIXB_ROW_COUNTED(number, label, type, ...) \
  | TVIXB_FACT(type, _counted) | TVIXB_COUNTED_##label
#define TVIXB_ROW_LIMITS(number, label, type, ...) | TVIXB_LIMITS_##type
#define TVIXB_ROW_FIELD(number, label, type, name_, rule_, ...) \
  [number] = {.name = #name_,                                   \
              .tag = (number) << 3 | TVIXB_WIRE_OF_##type,      \
              .rule = &tvixb_rule_##rule_.TVIXB_RULE_OF_##type, \
              TVIXB_LABEL_##label TVIXB_SET_##type,             \
              __VA_ARGS__},
#define TVIXB_ROW_NUMBER(number, label, type, name, ...) \
  , name##_least, name##_number = (number)
#define TVIXB_ROW_CHECK(number, label, type, name, ...)               \
  static_assert(name##_number >= name##_least &&                      \
                    name##_number <= TVIXB_FIELD_NUMBER_MAX,          \
                #name ": expected ascending field numbers up to 15"); \
  static_assert((TVIXB_LABELS_OF_##type) & (TVIXB_IS_##label),        \
                #name ": no field of this type can have this label"); \
  static_assert(!((TVIXB_IS_##label) & TVIXB_IS_LIST) ||              \
                    sizeof(struct TVIXB_FACT(type, _lists)) == 0,     \
                #name ": elements of a list cannot have sorted lists");
#define TVIXB_ROW_NEEDED(number, ...) \
  | (unsigned)tvixb_field_is_needed(&fields[number]) << (number)
#define TVIXB_ROW_ONEOF(number, ...) \
  | (unsigned)fields[number].oneof << (number)
// Embedded messages are inlined, because calls for each list element would cost
// a fifth of the scan. Those with several lists are large and rare.
#define TVIXB_ROW_SCAN(number, label, type, name, ...)                        \
  p = tvixb_scan_field(scan, &fields[number],                                 \
                       sizeof(struct TVIXB_FACT(type, _lists)) > 1            \
                           ? TVIXB_FACT(type, _scan)                          \
                           : TVIXB_FACT(type, _scan_inline),                  \
                       lists + offsetof(indices, name), oneof, p, end, depth, \
                       &seen, key);

// A scan function with all its code inlined: compilers do not inline all of it
// into a function this large otherwise, and the scan is then a tenth slower.
#define TVIXB_SCAN_FUNCTION \
  static __attribute__((noinline, flatten, unused)) TVIXB_TARGET

// Defines for a message with these rows and other members of tvixb_message:
// - message, its tvixb_message
// - message_scan, its tvixb_scan_function, and message_scan_inline
// - message_scan_root, the same for a root
// - struct message_lists, with a byte for each sorted list: the offset of a
//   list is its index
// - message_depths, with a bit for the number of fields of each path in it
// - message_counted and message_limits, with a bit for each tvixb_count that
//   its fields set, or that limits them
#define TVIXB_MESSAGE(message, ROWS, ...)                                     \
  struct message##_lists {                                                    \
    ROWS(TVIXB_ROW_LISTS)                                                     \
  };                                                                          \
  static_assert(sizeof(struct message##_lists) <= TVIXB_LIST_MAX,             \
                #message ": expected fewer lists; see TVIXB_LIST_MAX");       \
  enum {                                                                      \
    message##_depths = 0 ROWS(TVIXB_ROW_DEPTHS),                              \
    message##_counted = 0 ROWS(TVIXB_ROW_COUNTED),                            \
    message##_limits = 0 ROWS(TVIXB_ROW_LIMITS),                              \
  };                                                                          \
  static_assert(message##_depths < 2 << TVIXB_DEPTH_MAX,                      \
                #message ": expected a shorter path; see TVIXB_DEPTH_MAX");   \
  static const tvixb_field message##_fields[] = {ROWS(TVIXB_ROW_FIELD)};      \
  static const tvixb_message message = {                                      \
      .fields = message##_fields,                                             \
      .number_max = sizeof message##_fields / sizeof *message##_fields - 1,   \
      __VA_ARGS__};                                                           \
  TVIXB_SCAN_INLINE const uint8_t* message##_scan_inline(                     \
      tvixb_scan* scan, const uint8_t* p, const uint8_t* end, unsigned depth, \
      tvixb_list* lists, tvixb_view* key) {                                   \
    typedef struct message##_lists indices;                                   \
    const tvixb_field* const fields = message##_fields;                       \
    enum { before_all = 0 ROWS(TVIXB_ROW_NUMBER) };                           \
    ROWS(TVIXB_ROW_CHECK)                                                     \
    const unsigned needed = 0 ROWS(TVIXB_ROW_NEEDED);                         \
    const unsigned oneof = 0 ROWS(TVIXB_ROW_ONEOF);                           \
    unsigned seen = 0;                                                        \
    ROWS(TVIXB_ROW_SCAN)                                                      \
    return tvixb_scan_rest(scan, &message, p, end, depth, seen, needed,       \
                           oneof);                                            \
  }                                                                           \
  TVIXB_SCAN_FUNCTION const uint8_t* message##_scan(                          \
      tvixb_scan* scan, const uint8_t* p, const uint8_t* end, unsigned depth, \
      tvixb_list* lists, tvixb_view* key) {                                   \
    return message##_scan_inline(scan, p, end, depth, lists, key);            \
  }                                                                           \
  TVIXB_SCAN_FUNCTION const uint8_t* message##_scan_root(                     \
      tvixb_scan* scan, const uint8_t* p, const uint8_t* end) {               \
    tvixb_view key;                                                           \
    return message##_scan_inline(scan, p, end, 0, scan->lists, &key);         \
  }

// 1 + the index of a sorted list, in a message that is a root. `path` is the
// list's field, with the fields of the messages that it is in: a.b.
#define TVIXB_LIST(message, path)               \
  (1 + offsetof(struct message##_lists, path) + \
   0 * sizeof(char[sizeof(((struct message##_lists*)0)->path) == 1 ? 1 : -1]))

// The members of tvixb_kind for an array of relations.
#define TVIXB_RELATIONS(array) \
  .relations = array, .relation_count = sizeof array / sizeof *array

// A tvixb_kind with the name, the root message and other members.
#define TVIXB_KIND(name_, root, ...)                 \
  {.name = name_,                                    \
   .message = &root,                                 \
   .scan = root##_scan_root,                         \
   .list_count = sizeof(struct root##_lists),        \
   .packed_lists = root##_limits != 0,               \
   .caller_counts = root##_limits & ~root##_counted, \
   __VA_ARGS__}

#endif  // TVIXB_SCHEMA_ROWS_H
