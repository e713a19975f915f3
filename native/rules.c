// SPDX-License-Identifier: MIT
#include "rules.h"

#include <string.h>

static bool is_dots(const uint8_t* data, size_t size) {
  return (size == 1 && data[0] == '.') ||
         (size == 2 && data[0] == '.' && data[1] == '.');
}

bool tvixb_rule_is_no_dots(tvixb_view name) {
  return !is_dots(name.data, name.size);
}

static bool is_store_path(tvixb_view value) {
  static const char store[] = "/nix/store";
  size_t size = sizeof store - 1;
  return value.size >= size && memcmp(value.data, store, size) == 0 &&
         (value.size == size || value.data[size] == '/');
}

bool tvixb_rule_is_clean_path(tvixb_view value) {
  if (value.data[0] != '/') return false;
  const uint8_t* end = value.data + value.size;
  const uint8_t* p = value.data + 1;
  while (value.size > 1) {  // "/" alone has no components
    const uint8_t* slash = memchr(p, '/', (size_t)(end - p));
    size_t size = (size_t)((slash ? slash : end) - p);
    if (size == 0 || is_dots(p, size)) return false;
    if (!slash) break;
    p = slash + 1;
  }
  return !is_store_path(value);
}
