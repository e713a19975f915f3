// SPDX-License-Identifier: MIT
#include "schema_rules.h"

bool tvixb_rule_is_path_outside_store(tvixb_view path) {
  static const char store[] = "/nix/store";
  tvixb_view prefix = {(const uint8_t*)store, sizeof store - 1};
  return tvixb_rule_is_absolute_path(path) &&
         !tvixb_rule_is_below(path, prefix);
}

bool tvixb_rule_is_schema(tvixb_view name) {
  static const char* const schemas[] = {
      TVIXB_SCHEMA_TVIX_BUILD_V1,
      TVIXB_SCHEMA_TVIX_BUILD_V1_2024,
      TVIXB_SCHEMA_SNIX_BUILD_V1,
  };
  for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
    if (tvixb_view_is(name, schemas[i])) return true;
  }
  return false;
}

bool tvixb_rule_is_output_path(tvixb_view path) {
  return tvixb_rule_is_relative_path(path) &&
         tvixb_view_base_name(path).size <= 255;
}
