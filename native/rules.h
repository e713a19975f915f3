// SPDX-License-Identifier: MIT
//
// What a value must be: size, forbidden bytes, code of the violation, and the
// words for people, each written once.
#ifndef TVIXB_RULES_H
#define TVIXB_RULES_H

#include <stdbool.h>

#include "bytes.h"
#include "schema.h"
#include "tvix_build.h"
#include "view.h"

typedef struct tvixb_rule_row {
  const char* expected;  // what the value must be, in words
  size_t size_min;
  size_t size_max;
  // What else holds for a value of up to `further_size` bytes, if not NULL.
  bool (*further)(tvixb_view value);
  size_t further_size;
  uint8_t code;       // tvixb_code
  uint8_t forbidden;  // bits: TVIXB_BYTES_NUL, TVIXB_BYTES_BYTE
  uint8_t byte;       // of TVIXB_BYTES_BYTE
  uint8_t outside;    // tvixb_outside
} tvixb_rule_row;

// Whether a value must be outside of the message's base, unless that is empty;
// so many bytes come before what is compared, plus 1.
typedef enum tvixb_outside {
  TVIXB_OUTSIDE_NONE = 0,
  TVIXB_OUTSIDE_RELATIVE = 1,
  TVIXB_OUTSIDE_ABSOLUTE = 2,
} tvixb_outside;

// Whether a name is neither "." nor "..".
bool tvixb_rule_is_no_dots(tvixb_view name);

// Whether a path, not empty, is absolute and clean.
bool tvixb_rule_is_absolute_path(tvixb_view path);

// Whether it is so, and outside /nix/store.
bool tvixb_rule_is_ro_path(tvixb_view path);

// Whether a path is clean and not absolute, or empty.
bool tvixb_rule_is_relative_path(tvixb_view path);

// Whether a path, not empty, is `base` or below it.
bool tvixb_rule_is_below(tvixb_view path, tvixb_view base);

#define TVIXB_RELATIVE_PATH                                                  \
  "a clean relative path (no empty, \".\" or \"..\" component, no slash at " \
  "an "                                                                      \
  "end, no NUL)"

// Indexed by tvixb_rule.
static const tvixb_rule_row tvixb_rules[TVIXB_RULE_COUNT] = {
    [TVIXB_RULE_NONE] = {.expected = "", .size_max = SIZE_MAX},
    [TVIXB_RULE_ARGUMENT] = {.code = TVIXB_CODE_INVALID_ARG,
                             .expected = "an argument without NUL",
                             .size_max = SIZE_MAX,
                             .forbidden = TVIXB_BYTES_NUL},
    [TVIXB_RULE_NAME] = {.code = TVIXB_CODE_INVALID_NAME,
                         .expected =
                             "a path component (1 to 255 bytes, not \".\" or "
                             "\"..\", without \"/\" and NUL)",
                         .size_min = 1,
                         .size_max = 255,
                         .forbidden = TVIXB_BYTES_NUL | TVIXB_BYTES_BYTE,
                         .byte = '/',
                         .further = tvixb_rule_is_no_dots,
                         .further_size = 2},
    [TVIXB_RULE_DIGEST] = {.code = TVIXB_CODE_INVALID_DIGEST,
                           .expected = "a BLAKE3 digest of 32 bytes",
                           .size_min = TVIXB_DIGEST_SIZE,
                           .size_max = TVIXB_DIGEST_SIZE},
    [TVIXB_RULE_SYMLINK_TARGET] =
        {.code = TVIXB_CODE_INVALID_SYMLINK_TARGET,
         .expected = "a symlink target (1 to 4095 bytes without NUL)",
         .size_min = 1,
         .size_max = 4095,
         .forbidden = TVIXB_BYTES_NUL},
    [TVIXB_RULE_ENV_KEY] =
        {.code = TVIXB_CODE_INVALID_ENV_KEY,
         .expected = "an environment key (not empty, without \"=\" and NUL)",
         .size_min = 1,
         .size_max = SIZE_MAX,
         .forbidden = TVIXB_BYTES_NUL | TVIXB_BYTES_BYTE,
         .byte = '='},
    [TVIXB_RULE_ENV_VALUE] = {.code = TVIXB_CODE_INVALID_ENV_VALUE,
                              .expected = "an environment value without NUL",
                              .size_max = SIZE_MAX,
                              .forbidden = TVIXB_BYTES_NUL},
    [TVIXB_RULE_RO_PATH] =
        {.code = TVIXB_CODE_INVALID_PATH,
         .expected = "an absolute clean path outside /nix/store (no empty, "
                     "\".\" or \"..\" component, no superfluous slash, no "
                     "NUL)",
         .size_min = 1,
         .size_max = SIZE_MAX,
         .forbidden = TVIXB_BYTES_NUL,
         .further = tvixb_rule_is_ro_path,
         .further_size = SIZE_MAX},
    [TVIXB_RULE_NO_NAME] = {.code = TVIXB_CODE_INVALID_NAME,
                            .expected = "no name, as the request has it"},
    [TVIXB_RULE_FOLDER] = {.code = TVIXB_CODE_INVALID_PATH,
                           .expected = TVIXB_RELATIVE_PATH ", or nothing",
                           .size_max = SIZE_MAX,
                           .forbidden = TVIXB_BYTES_NUL,
                           .further = tvixb_rule_is_relative_path,
                           .further_size = SIZE_MAX},
    [TVIXB_RULE_RELATIVE_PATH] = {.code = TVIXB_CODE_INVALID_PATH,
                                  .expected = TVIXB_RELATIVE_PATH,
                                  .size_min = 1,
                                  .size_max = SIZE_MAX,
                                  .forbidden = TVIXB_BYTES_NUL,
                                  .further = tvixb_rule_is_relative_path,
                                  .further_size = SIZE_MAX},
    [TVIXB_RULE_FILE_PATH] = {.code = TVIXB_CODE_INVALID_PATH,
                              .expected =
                                  TVIXB_RELATIVE_PATH " outside inputs_dir",
                              .size_min = 1,
                              .size_max = SIZE_MAX,
                              .forbidden = TVIXB_BYTES_NUL,
                              .further = tvixb_rule_is_relative_path,
                              .further_size = SIZE_MAX,
                              .outside = TVIXB_OUTSIDE_RELATIVE},
    [TVIXB_RULE_HOST_PATH] =
        {.code = TVIXB_CODE_INVALID_PATH,
         .expected = "an absolute clean path outside inputs_dir (no empty, "
                     "\".\" or \"..\" component, no superfluous slash, no "
                     "NUL)",
         .size_min = 1,
         .size_max = SIZE_MAX,
         .forbidden = TVIXB_BYTES_NUL,
         .further = tvixb_rule_is_absolute_path,
         .further_size = SIZE_MAX,
         .outside = TVIXB_OUTSIDE_ABSOLUTE},
    [TVIXB_RULE_NEEDLE] = {.code = TVIXB_CODE_INVALID_NEEDLE,
                           .expected = "a needle that is not empty",
                           .size_min = 1,
                           .size_max = SIZE_MAX},
};

// Whether a value keeps a rule; `found` is tvixb_bytes_find for the rule's
// byte.
static inline bool tvixb_rule_holds(const tvixb_rule_row* rule,
                                    tvixb_view value, unsigned found) {
  if (value.size < rule->size_min || value.size > rule->size_max) return false;
  if (found & rule->forbidden) return false;
  return value.size > rule->further_size || !rule->further ||
         rule->further(value);
}

// Whether a value that keeps its rule otherwise is outside of the base, where
// the rule says so.
static inline bool tvixb_rule_is_outside(const tvixb_rule_row* rule,
                                         tvixb_view value, tvixb_view base) {
  if (!rule->outside || !base.size) return true;
  size_t before = rule->outside - TVIXB_OUTSIDE_RELATIVE;
  return !tvixb_rule_is_below(
      (tvixb_view){value.data + before, value.size - before}, base);
}

#endif  // TVIXB_RULES_H
