// SPDX-License-Identifier: MIT
//
// TVIXB_SCAN_MESSAGE(table) defines the scan function of a message from its
// table. It must be in the file that defines the table, so that the compiler
// can fold its constants into the code. Fields are in ascending order in the
// ordinary form, so the code tries the fields in that order, without a lookup.
#ifndef TVIXB_SCAN_MESSAGE_H
#define TVIXB_SCAN_MESSAGE_H

#include "packed.h"
#include "rules.h"
#include "scan.h"
#include "schema_rules.h"
#include "utf8.h"
#include "wire.h"

#define TVIXB_SCAN_INLINE \
  static inline __attribute__((always_inline)) TVIXB_TARGET

// Reads a varint. Returns its end; NULL if it is not the shortest form or is
// incomplete.
TVIXB_SCAN_INLINE const uint8_t* tvixb_scan_varint(const uint8_t* p,
                                                   const uint8_t* end,
                                                   uint64_t* value) {
  if (__builtin_expect(p < end && *p < 0x80, 1)) {
    *value = *p;
    return p + 1;
  }
  if (__builtin_expect(end - p >= 2 && p[1] - 1u < 0x7f, 1)) {
    *value = (*p & 0x7f) | (uint64_t)p[1] << 7;
    return p + 2;
  }
  return tvixb_scan_long_varint(p, end, value);
}

// The place of a value in its message. The scan's path gets it only when the
// scan enters a message or reports a violation, because that is rarer than
// values.
typedef struct tvixb_scan_place {
  unsigned depth;
  unsigned number;  // of the field
  uint64_t index;   // TVIXB_NO_INDEX: not a list element
} tvixb_scan_place;

// Sets the scan's path to a place.
TVIXB_SCAN_INLINE void tvixb_scan_enter(tvixb_scan* scan,
                                        tvixb_scan_place place) {
  scan->path.field[place.depth] = (uint8_t)place.number;
  scan->path.index[place.depth] = place.index;
}

// Checks the rule of a value. Returns false if the value is a string and not
// UTF-8.
TVIXB_SCAN_INLINE bool tvixb_scan_check(tvixb_scan* scan,
                                        const tvixb_field* field,
                                        tvixb_scan_place place,
                                        tvixb_view value) {
  const tvixb_rule_row* rule = &tvixb_rules[field->rule];
  bool text = field->type == TVIXB_TYPE_STRING;
  unsigned found = 0;
  if (text || rule->forbidden) {
    unsigned wanted = rule->forbidden | (text ? TVIXB_BYTES_HIGH : 0);
    found =
        tvixb_bytes_find(value.data, value.size, scan->end, wanted, rule->byte);
    if (text && __builtin_expect(found & TVIXB_BYTES_HIGH, 0) &&
        tvixb_utf8_valid(value.data, value.size) != value.size) {
      return false;
    }
  }
  if (__builtin_expect(
          !tvixb_rule_holds(rule, value, found) ||
              !tvixb_rule_is_outside(rule, value, scan->path_prefix),
          0)) {
    tvixb_scan_enter(scan, place);
    tvixb_scan_report(scan, tvixb_rules[field->rule].code, place.depth + 1,
                      value);
  }
  return true;
}

// Scans a value, after its tag. Returns its end; NULL if it is not in the
// ordinary form.
TVIXB_SCAN_INLINE const uint8_t* tvixb_scan_value(
    tvixb_scan* scan, const tvixb_field* field, const uint8_t* p,
    const uint8_t* end, tvixb_scan_place place, tvixb_view* key) {
  uint64_t number;
  p = tvixb_scan_varint(p, end, &number);
  if (!p) return NULL;
  if ((field->tag & 7) == TVIXB_WIRE_VARINT) {
    if (number == 0) return NULL;
    if (field->type == TVIXB_TYPE_BOOL && number != 1) return NULL;
    if (field->adds_to_total) tvixb_scan_add_to_total(scan, number);
    return p;
  }
  if (number > (size_t)(end - p) || number > INT32_MAX) return NULL;
  if (field->type == TVIXB_TYPE_MESSAGE) {
    tvixb_scan_enter(scan, place);
    return field->message->scan(scan, p, p + number, place.depth + 1, key);
  }
  if (number == 0 && !field->repeated && !field->oneof) return NULL;
  tvixb_view value = {p, (size_t)number};
  if (field->type == TVIXB_TYPE_PACKED) {
    tvixb_scan_enter(scan, place);
    return tvixb_packed_scan(scan, field, value, place.depth) ? p + number
                                                              : NULL;
  }
  if (field->path_prefix) scan->path_prefix = value;
  if (field->key || field->list) *key = value;
  return tvixb_scan_check(scan, field, place, value) ? p + number : NULL;
}

// Scans all elements of a list. Returns their end; NULL if one is not in the
// ordinary form.
TVIXB_SCAN_INLINE const uint8_t* tvixb_scan_list(tvixb_scan* scan,
                                                 const tvixb_field* field,
                                                 const uint8_t* p,
                                                 const uint8_t* end,
                                                 tvixb_scan_place place) {
  tvixb_scan_enter(scan, place);
  if (field->list) tvixb_scan_begin_list(scan, field->list - 1, place.depth);
  do {
    const uint8_t* begin = p;
    tvixb_view key = {0};
    p = tvixb_scan_value(scan, field, p + 1, end, place, &key);
    if (!p) return NULL;
    if (field->list &&
        !tvixb_scan_add_element(scan, field->list - 1, !field->unkeyed,
                                place.index, place.depth, begin, key)) {
      return NULL;
    }
    place.index++;
  } while (p < end && *p == field->tag);
  if (field->list) tvixb_scan_end_list(scan, field->list - 1, place.index, p);
  if (field->count) scan->counts[field->count] = place.index;
  return p;
}

// Scans a field of a message if it is the next one. Returns its end or, if it
// is absent, p; NULL if it is not in the ordinary form.
TVIXB_SCAN_INLINE const uint8_t* tvixb_scan_field(
    tvixb_scan* scan, const tvixb_message* message, unsigned number,
    const uint8_t* p, const uint8_t* end, unsigned depth, unsigned* seen,
    tvixb_view* key) {
  const tvixb_field* field = &message->fields[number];
  if (!field->tag || !p || p == end || *p != field->tag) return p;
  if (field->oneof && (*seen & message->oneof)) return NULL;
  *seen |= 1u << number;
  tvixb_scan_place place = {depth, number,
                            field->repeated ? 0 : TVIXB_NO_INDEX};
  if (field->repeated) return tvixb_scan_list(scan, field, p, end, place);
  return tvixb_scan_value(scan, field, p + 1, end, place, key);
}

#define TVIXB_SCAN_FIELD(number, table) \
  p = tvixb_scan_field(scan, &(table), number, p, end, depth, &seen, key);

// Defines scan_TABLE, a tvixb_scan_function, for the message with this table.
#define TVIXB_SCAN_MESSAGE(table)                                             \
  TVIXB_SCAN_INLINE const uint8_t* scan_##table(                              \
      tvixb_scan* scan, const uint8_t* p, const uint8_t* end, unsigned depth, \
      tvixb_view* key) {                                                      \
    unsigned seen = 0;                                                        \
    TVIXB_SCAN_FIELD(1, table)                                                \
    TVIXB_SCAN_FIELD(2, table)                                                \
    TVIXB_SCAN_FIELD(3, table)                                                \
    TVIXB_SCAN_FIELD(4, table)                                                \
    TVIXB_SCAN_FIELD(5, table)                                                \
    TVIXB_SCAN_FIELD(6, table)                                                \
    TVIXB_SCAN_FIELD(7, table)                                                \
    TVIXB_SCAN_FIELD(8, table)                                                \
    TVIXB_SCAN_FIELD(9, table)                                                \
    TVIXB_SCAN_FIELD(10, table)                                               \
    if (!p) return NULL;                                                      \
    if (p < end) p = tvixb_scan_unknown(scan, &(table), p, end, depth);       \
    if (((table).needed & ~seen) ||                                           \
        ((table).oneof && !((table).oneof & seen))) {                         \
      tvixb_scan_absent(scan, &(table), depth, seen);                         \
    }                                                                         \
    return p;                                                                 \
  }

#endif  // TVIXB_SCAN_MESSAGE_H
