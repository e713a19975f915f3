// SPDX-License-Identifier: MIT
//
// How the rule of a value is checked; the rules are in schema_rules.h.
#ifndef TVIXB_RULES_H
#define TVIXB_RULES_H

#include <stdbool.h>

#include "bytes.h"
#include "view.h"

typedef struct tvixb_rule_row {
  const char* expected;  // what the value must be, in words
  size_t size_min;
  size_t size_max;
  // What else a value of up to `extra_check_size_max` bytes must pass; NULL:
  // nothing.
  bool (*extra_check)(tvixb_view value);
  size_t extra_check_size_max;
  uint8_t code;              // tvixb_code
  uint8_t forbidden;         // bits: TVIXB_BYTES_NUL, TVIXB_BYTES_BYTE
  uint8_t byte;              // of TVIXB_BYTES_BYTE
  uint8_t forbidden_prefix;  // tvixb_prefix
} tvixb_rule_row;

// Whether a value must neither be the path prefix of its message nor below it,
// unless that is empty: 1 + the bytes of the value before what is compared.
typedef enum tvixb_prefix {
  TVIXB_PREFIX_NONE = 0,
  TVIXB_PREFIX_RELATIVE = 1,
  TVIXB_PREFIX_ABSOLUTE = 2,
} tvixb_prefix;

// Whether a name is neither "." nor "..".
bool tvixb_rule_is_no_dots(tvixb_view name);

// Whether a path, not empty, is absolute and clean.
bool tvixb_rule_is_absolute_path(tvixb_view path);

// Whether a path is clean and not absolute, or empty.
bool tvixb_rule_is_relative_path(tvixb_view path);

// Whether a path, not empty, is `prefix` or below it.
bool tvixb_rule_is_below(tvixb_view path, tvixb_view prefix);

// Whether a value keeps a rule; `found` is tvixb_bytes_find for the rule's
// byte.
static inline bool tvixb_rule_holds(const tvixb_rule_row* rule,
                                    tvixb_view value, unsigned found) {
  if (value.size < rule->size_min || value.size > rule->size_max) return false;
  if (found & rule->forbidden) return false;
  return value.size > rule->extra_check_size_max || !rule->extra_check ||
         rule->extra_check(value);
}

// Whether a value that keeps its rule otherwise is outside of the path prefix,
// where the rule says so.
static inline bool tvixb_rule_is_outside(const tvixb_rule_row* rule,
                                         tvixb_view value, tvixb_view prefix) {
  if (!rule->forbidden_prefix || !prefix.size) return true;
  size_t before = rule->forbidden_prefix - TVIXB_PREFIX_RELATIVE;
  return !tvixb_rule_is_below(
      (tvixb_view){value.data + before, value.size - before}, prefix);
}

#endif  // TVIXB_RULES_H
