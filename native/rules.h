// SPDX-License-Identifier: MIT
//
// Checks values against rules (tvixb_rule). The rules are in schema_rules.h.
#ifndef TVIXB_RULES_H
#define TVIXB_RULES_H

#include <stdbool.h>

#include "bytes.h"
#include "schema.h"
#include "view.h"

// Whether a value must not be the path prefix of its message, or below it,
// unless the prefix is empty: 1 + the number of leading bytes of the value that
// the comparison skips.
typedef enum tvixb_prefix {
  TVIXB_PREFIX_NONE = 0,
  TVIXB_PREFIX_RELATIVE = 1,
  TVIXB_PREFIX_ABSOLUTE = 2,
} tvixb_prefix;

// Returns whether a name is neither "." nor "..".
bool tvixb_rule_is_no_dots(tvixb_view name);

// Returns whether a non-empty path is absolute and clean.
bool tvixb_rule_is_absolute_path(tvixb_view path);

// Returns whether a path is empty, or clean and relative.
bool tvixb_rule_is_relative_path(tvixb_view path);

// Returns whether a non-empty path is `prefix` or below it.
bool tvixb_rule_is_below(tvixb_view path, tvixb_view prefix);

// Returns whether a value satisfies a rule, apart from its forbidden prefix.
// `found` is the result of tvixb_bytes_find for the rule's byte.
static inline bool tvixb_rule_holds(const tvixb_rule* rule, tvixb_view value,
                                    unsigned found) {
  if (value.size < rule->min || value.size > rule->max) return false;
  if (found & rule->forbidden) return false;
  return value.size > rule->extra_check_size_max || !rule->extra_check ||
         rule->extra_check(value);
}

// Returns whether a number satisfies a rule.
static inline bool tvixb_rule_allows_number(const tvixb_rule* rule,
                                            uint64_t number) {
  return number >= rule->min && number <= rule->max;
}

// Returns whether a value, which satisfies the rest of its rule, is outside the
// path prefix. True if the rule does not forbid the prefix or the prefix is
// empty.
static inline bool tvixb_rule_is_outside(const tvixb_rule* rule,
                                         tvixb_view value, tvixb_view prefix) {
  if (!rule->forbidden_prefix || !prefix.size) return true;
  size_t before = rule->forbidden_prefix - TVIXB_PREFIX_RELATIVE;
  return !tvixb_rule_is_below(
      (tvixb_view){value.data + before, value.size - before}, prefix);
}

#endif  // TVIXB_RULES_H
