// SPDX-License-Identifier: MIT
#include "schema_rules.h"

bool tvixb_rule_is_path_outside_store(tvixb_view path) {
  static const char store[] = "/nix/store";
  tvixb_view prefix = {(const uint8_t*)store, sizeof store - 1};
  return tvixb_rule_is_absolute_path(path) &&
         !tvixb_rule_is_below(path, prefix);
}
