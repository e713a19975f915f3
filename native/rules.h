// SPDX-License-Identifier: MIT
//
// What a value must be: the test, the code of its violation, and the words for
// people, each written once.
#ifndef TVIXB_RULES_H
#define TVIXB_RULES_H

#include <stdbool.h>

#include "schema.h"
#include "view.h"

typedef struct tvixb_rule_text {
  uint8_t code;          // tvixb_code
  const char* expected;  // what the value must be
} tvixb_rule_text;

// Indexed by tvixb_rule.
extern const tvixb_rule_text tvixb_rule_texts[TVIXB_RULE_COUNT];

// Whether a value keeps a rule.
bool tvixb_rule_holds(tvixb_rule rule, tvixb_view value);

#endif  // TVIXB_RULES_H
