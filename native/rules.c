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

// Returns whether no component of a path is empty, "." or "..".
static bool is_clean(const uint8_t* p, const uint8_t* end) {
  for (;;) {
    const uint8_t* slash = memchr(p, '/', (size_t)(end - p));
    size_t size = (size_t)((slash ? slash : end) - p);
    if (size == 0 || is_dots(p, size)) return false;
    if (!slash) return true;
    p = slash + 1;
  }
}

bool tvixb_rule_is_absolute_path(tvixb_view path) {
  if (path.data[0] != '/') return false;
  if (path.size == 1) return true;  // "/" alone has no components
  return is_clean(path.data + 1, path.data + path.size);
}

bool tvixb_rule_is_relative_path(tvixb_view path) {
  return path.size == 0 || is_clean(path.data, path.data + path.size);
}

bool tvixb_rule_is_below(tvixb_view path, tvixb_view prefix) {
  return path.size >= prefix.size &&
         memcmp(path.data, prefix.data, prefix.size) == 0 &&
         (path.size == prefix.size || path.data[prefix.size] == '/');
}
