// SPDX-License-Identifier: MIT
//
// The rules for the values of fields: size, forbidden bytes, code of the
// violation, and the text for its message.
#ifndef TVIXB_SCHEMA_RULES_H
#define TVIXB_SCHEMA_RULES_H

#include "rules.h"
#include "tvix_build.h"

typedef enum tvixb_rule {
  TVIXB_RULE_NONE = 0,
  TVIXB_RULE_ARGUMENT,
  TVIXB_RULE_NAME,
  TVIXB_RULE_DIGEST,
  TVIXB_RULE_SYMLINK_TARGET,
  TVIXB_RULE_ENV_KEY,
  TVIXB_RULE_ENV_VALUE,
  TVIXB_RULE_RO_PATH,
  TVIXB_RULE_NO_NAME,
  TVIXB_RULE_DIRECTORY_PATH,
  TVIXB_RULE_RELATIVE_PATH,
  TVIXB_RULE_FILE_PATH,
  TVIXB_RULE_HOST_PATH,
  TVIXB_RULE_NEEDLE,
  TVIXB_RULE_NEEDLE_INDEX,
  TVIXB_RULE_COUNT,
} tvixb_rule;

// Returns whether a non-empty path is absolute and clean, and neither
// /nix/store nor below it.
bool tvixb_rule_is_path_outside_store(tvixb_view path);

#define TVIXB_RELATIVE_PATH                                         \
  "a clean relative path (no empty, \".\" or \"..\" component, no " \
  "leading or trailing slash, no NUL)"

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
                             "\"..\", without \"/\" or NUL)",
                         .size_min = 1,
                         .size_max = 255,
                         .forbidden = TVIXB_BYTES_NUL | TVIXB_BYTES_BYTE,
                         .byte = '/',
                         .extra_check = tvixb_rule_is_no_dots,
                         .extra_check_size_max = 2},
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
         .expected = "a non-empty environment key without \"=\" or NUL",
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
         .expected = "a clean absolute path outside /nix/store (no empty, "
                     "\".\" or \"..\" component, no redundant slash, no "
                     "NUL)",
         .size_min = 1,
         .size_max = SIZE_MAX,
         .forbidden = TVIXB_BYTES_NUL,
         .extra_check = tvixb_rule_is_path_outside_store,
         .extra_check_size_max = SIZE_MAX},
    [TVIXB_RULE_NO_NAME] = {.code = TVIXB_CODE_INVALID_NAME,
                            .expected = "no name, because the request "
                                        "has the path"},
    [TVIXB_RULE_DIRECTORY_PATH] = {.code = TVIXB_CODE_INVALID_PATH,
                                   .expected =
                                       TVIXB_RELATIVE_PATH " or an empty path",
                                   .size_max = SIZE_MAX,
                                   .forbidden = TVIXB_BYTES_NUL,
                                   .extra_check = tvixb_rule_is_relative_path,
                                   .extra_check_size_max = SIZE_MAX},
    [TVIXB_RULE_RELATIVE_PATH] = {.code = TVIXB_CODE_INVALID_PATH,
                                  .expected = TVIXB_RELATIVE_PATH,
                                  .size_min = 1,
                                  .size_max = SIZE_MAX,
                                  .forbidden = TVIXB_BYTES_NUL,
                                  .extra_check = tvixb_rule_is_relative_path,
                                  .extra_check_size_max = SIZE_MAX},
    [TVIXB_RULE_FILE_PATH] = {.code = TVIXB_CODE_INVALID_PATH,
                              .expected =
                                  TVIXB_RELATIVE_PATH " outside inputs_dir",
                              .size_min = 1,
                              .size_max = SIZE_MAX,
                              .forbidden = TVIXB_BYTES_NUL,
                              .extra_check = tvixb_rule_is_relative_path,
                              .extra_check_size_max = SIZE_MAX,
                              .forbidden_prefix = TVIXB_PREFIX_RELATIVE},
    [TVIXB_RULE_HOST_PATH] =
        {.code = TVIXB_CODE_INVALID_PATH,
         .expected = "a clean absolute path outside inputs_dir (no empty, "
                     "\".\" or \"..\" component, no redundant slash, no "
                     "NUL)",
         .size_min = 1,
         .size_max = SIZE_MAX,
         .forbidden = TVIXB_BYTES_NUL,
         .extra_check = tvixb_rule_is_absolute_path,
         .extra_check_size_max = SIZE_MAX,
         .forbidden_prefix = TVIXB_PREFIX_ABSOLUTE},
    [TVIXB_RULE_NEEDLE] = {.code = TVIXB_CODE_INVALID_NEEDLE,
                           .expected = "a non-empty needle",
                           .size_min = 1,
                           .size_max = SIZE_MAX},
    [TVIXB_RULE_NEEDLE_INDEX] = {.code = TVIXB_CODE_INVALID_NEEDLE,
                                 .expected = "an index into the request's "
                                             "refscan_needles",
                                 .size_max = SIZE_MAX},
};

#endif  // TVIXB_SCHEMA_RULES_H
