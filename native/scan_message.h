// SPDX-License-Identifier: MIT
//
// The code of scan functions, which schema_rows.h makes from the rows of a
// message. It must be compiled in the file that defines the table, so that the
// compiler can fold its constants into the code. Fields are in ascending order
// in the ordinary form, so the code tries the fields in that order, without a
// lookup.
#ifndef TVIXB_SCAN_MESSAGE_H
#define TVIXB_SCAN_MESSAGE_H

#include "packed.h"
#include "rules.h"
#include "scan.h"
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
  unsigned number;   // of the field
  tvixb_list* list;  // a sorted list, or the first one in an embedded message
  uint64_t index;    // TVIXB_NO_INDEX: not a list element
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
  const tvixb_rule* rule = field->rule;
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
    tvixb_scan_report(scan, rule->code, place.depth + 1, value);
  }
  return true;
}

// Returns whether all that a value must have is a size of less than 128 bytes.
TVIXB_SCAN_INLINE bool tvixb_scan_is_fixed(const tvixb_field* field) {
  const tvixb_rule* rule = field->rule;
  return field->type == TVIXB_TYPE_BYTES && rule->min == rule->max &&
         rule->min > 0 && rule->min < 0x80 && !rule->forbidden &&
         !rule->extra_check && !rule->forbidden_prefix && !field->key &&
         !field->sorted && !field->path_prefix;
}

// Scans a value, after its tag. `embedded` scans a TVIXB_TYPE_MESSAGE. Returns
// its end; NULL if it is not in the ordinary form.
TVIXB_SCAN_INLINE const uint8_t* tvixb_scan_value(
    tvixb_scan* scan, const tvixb_field* field, tvixb_scan_function* embedded,
    const uint8_t* p, const uint8_t* end, tvixb_scan_place place,
    tvixb_view* key) {
  // The CPU predicts that the size is right, and does not wait for it.
  if (tvixb_scan_is_fixed(field) &&
      __builtin_expect((uint64_t)(end - p) > field->rule->min, 1) &&
      __builtin_expect(*p == field->rule->min, 1)) {
    return p + 1 + field->rule->min;
  }
  uint64_t number;
  p = tvixb_scan_varint(p, end, &number);
  if (!p) return NULL;
  if ((field->tag & 7) == TVIXB_WIRE_VARINT) {
    if (number == 0 && !field->oneof) return NULL;
    if (field->type == TVIXB_TYPE_BOOL && number > 1) return NULL;
    if (!tvixb_rule_allows_number(field->rule, number)) {
      tvixb_scan_enter(scan, place);
      tvixb_scan_report_number(scan, field->rule->code, place.depth + 1,
                               number);
    }
    if (field->adds_to_total) tvixb_scan_add_to_total(scan, number);
    return p;
  }
  if (number > (size_t)(end - p) || number > INT32_MAX) return NULL;
  if (field->type == TVIXB_TYPE_MESSAGE) {
    tvixb_scan_enter(scan, place);
    if (!field->encoded) {
      return embedded(scan, p, p + number, place.depth + 1, place.list, key);
    }
    if (number == 0) return NULL;
    unsigned depth_max = scan->depth_max;
    scan->depth_max = TVIXB_WIRE_DEPTH_MAX + place.depth + 1;
    p = embedded(scan, p, p + number, place.depth + 1, place.list, key);
    scan->depth_max = depth_max;
    return p;
  }
  if (number == 0 && !field->repeated && !field->oneof) return NULL;
  tvixb_view value = {p, (size_t)number};
  if (field->type == TVIXB_TYPE_PACKED) {
    tvixb_scan_enter(scan, place);
    return tvixb_packed_scan(scan, field, value, place.depth) ? p + number
                                                              : NULL;
  }
  if (field->path_prefix) scan->path_prefix = value;
  if (field->key || field->sorted) {
    *key = field->base_name ? tvixb_view_base_name(value) : value;
  }
  return tvixb_scan_check(scan, field, place, value) ? p + number : NULL;
}

// Scans all elements of a list. Returns their end; NULL if one is not in the
// ordinary form.
TVIXB_SCAN_INLINE const uint8_t* tvixb_scan_list(
    tvixb_scan* scan, const tvixb_field* field, tvixb_scan_function* embedded,
    const uint8_t* p, const uint8_t* end, tvixb_scan_place place) {
  tvixb_scan_enter(scan, place);
  if (field->sorted) tvixb_scan_begin_list(scan, place.list, place.depth);
  do {
    const uint8_t* begin = p;
    tvixb_view key = {0};
    p = tvixb_scan_value(scan, field, embedded, p + 1, end, place, &key);
    if (!p) return NULL;
    if (field->sorted &&
        !tvixb_scan_add_element(scan, place.list, !field->unkeyed, place.index,
                                place.depth, begin, key)) {
      return NULL;
    }
    place.index++;
  } while (p < end && *p == field->tag);
  if (field->sorted) tvixb_scan_end_list(scan, place.list, place.index, p);
  if (field->count) scan->counts[field->count] = place.index;
  return p;
}

// Scans a field of a message if it is the next one. `embedded` is as in
// tvixb_scan_value, `list` as in tvixb_scan_place, and `oneof` has a bit for
// each member of the message's oneof. Returns its end or, if it is absent, p;
// NULL if it is not in the ordinary form.
TVIXB_SCAN_INLINE const uint8_t* tvixb_scan_field(
    tvixb_scan* scan, const tvixb_field* field, tvixb_scan_function* embedded,
    tvixb_list* list, unsigned oneof, const uint8_t* p, const uint8_t* end,
    unsigned depth, unsigned* seen, tvixb_view* key) {
  if (!p || p == end || *p != field->tag) return p;
  if (field->oneof && (*seen & oneof)) return NULL;
  unsigned number = field->tag >> 3;
  *seen |= 1u << number;
  tvixb_scan_place place = {depth, number, list,
                            field->repeated ? 0 : TVIXB_NO_INDEX};
  if (field->repeated) {
    return tvixb_scan_list(scan, field, embedded, p, end, place);
  }
  return tvixb_scan_value(scan, field, embedded, p + 1, end, place, key);
}

// Ends the scan of a message after its known fields at p. `needed` has a bit
// for each field whose absence violates a rule.
TVIXB_SCAN_INLINE const uint8_t* tvixb_scan_rest(
    tvixb_scan* scan, const tvixb_message* message, const uint8_t* p,
    const uint8_t* end, unsigned depth, unsigned seen, unsigned needed,
    unsigned oneof) {
  if (!p) return NULL;
  if (p < end && !tvixb_scan_unknown(scan, message, p, end, depth)) return NULL;
  if ((needed & ~seen) || (oneof && !(oneof & seen))) {
    tvixb_scan_absent(scan, message, depth, seen);
  }
  // This is p, but depends only on the length of the message: the CPU scans the
  // next list element before it has the lengths in this one.
  return end;
}

#endif  // TVIXB_SCAN_MESSAGE_H
