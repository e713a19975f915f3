// SPDX-License-Identifier: MIT
#include "rules.h"

#include <string.h>

#include "tvix_build.h"

#define NAME_SIZE_MAX 255
#define SYMLINK_TARGET_SIZE_MAX 4095

const tvixb_rule_text tvixb_rule_texts[TVIXB_RULE_COUNT] = {
    [TVIXB_RULE_NONE] = {0, ""},
    [TVIXB_RULE_ARGUMENT] = {TVIXB_CODE_INVALID_ARG, "an argument without NUL"},
    [TVIXB_RULE_NAME] = {TVIXB_CODE_INVALID_NAME,
                         "a path component (1 to 255 bytes, not \".\" or "
                         "\"..\", without \"/\" and NUL)"},
    [TVIXB_RULE_DIGEST] = {TVIXB_CODE_INVALID_DIGEST,
                           "a BLAKE3 digest of 32 bytes"},
    [TVIXB_RULE_SYMLINK_TARGET] = {TVIXB_CODE_INVALID_SYMLINK_TARGET,
                                   "a symlink target (1 to 4095 bytes without "
                                   "NUL)"},
    [TVIXB_RULE_ENV_KEY] = {TVIXB_CODE_INVALID_ENV_KEY,
                            "an environment key (not empty, without \"=\" and "
                            "NUL)"},
    [TVIXB_RULE_ENV_VALUE] = {TVIXB_CODE_INVALID_ENV_VALUE,
                              "an environment value without NUL"},
    [TVIXB_RULE_RO_PATH] = {TVIXB_CODE_INVALID_PATH,
                            "an absolute clean path outside /nix/store (no "
                            "empty, \".\" or \"..\" component, no superfluous "
                            "slash, no NUL)"},
};

static bool contains(tvixb_view value, int byte) {
  return value.size && memchr(value.data, byte, value.size);
}

static bool equals(const uint8_t* data, size_t size, const char* text) {
  return size == strlen(text) && memcmp(data, text, size) == 0;
}

static bool is_dots(const uint8_t* data, size_t size) {
  return equals(data, size, ".") || equals(data, size, "..");
}

static bool is_name(tvixb_view value) {
  return value.size >= 1 && value.size <= NAME_SIZE_MAX &&
         !is_dots(value.data, value.size) && !contains(value, '/') &&
         !contains(value, 0);
}

static bool is_store_path(tvixb_view value) {
  static const char store[] = "/nix/store";
  size_t size = sizeof store - 1;
  return value.size >= size && memcmp(value.data, store, size) == 0 &&
         (value.size == size || value.data[size] == '/');
}

static bool is_ro_path(tvixb_view value) {
  if (value.size == 0 || value.data[0] != '/' || contains(value, 0)) {
    return false;
  }
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

bool tvixb_rule_holds(tvixb_rule rule, tvixb_view value) {
  switch (rule) {
    case TVIXB_RULE_NAME:
      return is_name(value);
    case TVIXB_RULE_DIGEST:
      return value.size == TVIXB_DIGEST_SIZE;
    case TVIXB_RULE_SYMLINK_TARGET:
      return value.size >= 1 && value.size <= SYMLINK_TARGET_SIZE_MAX &&
             !contains(value, 0);
    case TVIXB_RULE_ENV_KEY:
      return value.size >= 1 && !contains(value, '=') && !contains(value, 0);
    case TVIXB_RULE_ARGUMENT:
    case TVIXB_RULE_ENV_VALUE:
      return !contains(value, 0);
    case TVIXB_RULE_RO_PATH:
      return is_ro_path(value);
    case TVIXB_RULE_NONE:
    case TVIXB_RULE_COUNT:
      break;
  }
  return true;
}
