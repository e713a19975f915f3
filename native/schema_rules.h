// SPDX-License-Identifier: MIT
//
// The rules for the values of fields: bounds, forbidden bytes, code of the
// violation, and the text for its message. A row of a schema names a rule
// without `tvixb_rule_`. The type of a rule says for which fields it is: a row
// with a rule for another type does not compile.
#ifndef TVIXB_SCHEMA_RULES_H
#define TVIXB_SCHEMA_RULES_H

#include "rules.h"
#include "tvix_build.h"

// A rule for bytes and strings.
typedef struct tvixb_bytes_rule {
  tvixb_rule bytes;
} tvixb_bytes_rule;

// A rule for numbers: UINT64, BOOL (0 or 1) and each number of a PACKED.
typedef struct tvixb_number_rule {
  tvixb_rule number;
} tvixb_number_rule;

// No rule.
static const union {
  tvixb_rule bytes;
  tvixb_rule number;
  tvixb_rule message;
} tvixb_rule_none = {.bytes = {.expected = "", .max = UINT64_MAX}};

// Returns whether a non-empty path is absolute and clean, and neither
// /nix/store nor below it.
bool tvixb_rule_is_path_outside_store(tvixb_view path);

// Returns whether a value is the name of a schema of requests.
bool tvixb_rule_is_schema(tvixb_view name);

#define TVIXB_SCHEMA_TVIX_BUILD_V1 "tvix.build.v1"
#define TVIXB_SCHEMA_TVIX_BUILD_V1_2024 "tvix.build.v1@2024"
#define TVIXB_SCHEMA_SNIX_BUILD_V1 "snix.build.v1"

// Returns whether the last component of a clean relative path is short enough
// for the name of an input.
bool tvixb_rule_is_output_path(tvixb_view path);

#define TVIXB_RELATIVE_PATH                                         \
  "a clean relative path (no empty, \".\" or \"..\" component, no " \
  "leading or trailing slash, no NUL)"

static const tvixb_bytes_rule tvixb_rule_argument = {
    .bytes = {.code = TVIXB_CODE_INVALID_ARG,
              .expected = "an argument without NUL",
              .max = UINT64_MAX,
              .forbidden = TVIXB_BYTES_NUL}};

static const tvixb_bytes_rule tvixb_rule_name = {
    .bytes = {.code = TVIXB_CODE_INVALID_NAME,
              .expected = "a path component (1 to 255 bytes, not \".\" or "
                          "\"..\", without \"/\" or NUL)",
              .min = 1,
              .max = 255,
              .forbidden = TVIXB_BYTES_NUL | TVIXB_BYTES_BYTE,
              .byte = '/',
              .extra_check = tvixb_rule_is_no_dots,
              .extra_check_size_max = 2}};

static const tvixb_bytes_rule tvixb_rule_digest = {
    .bytes = {.code = TVIXB_CODE_INVALID_DIGEST,
              .expected = "a BLAKE3 digest of 32 bytes",
              .min = TVIXB_DIGEST_SIZE,
              .max = TVIXB_DIGEST_SIZE}};

static const tvixb_bytes_rule tvixb_rule_symlink_target = {
    .bytes = {.code = TVIXB_CODE_INVALID_SYMLINK_TARGET,
              .expected = "a symlink target (1 to 4095 bytes without NUL)",
              .min = 1,
              .max = 4095,
              .forbidden = TVIXB_BYTES_NUL}};

static const tvixb_bytes_rule tvixb_rule_env_key = {
    .bytes = {.code = TVIXB_CODE_INVALID_ENV_KEY,
              .expected = "a non-empty environment key without \"=\" or NUL",
              .min = 1,
              .max = UINT64_MAX,
              .forbidden = TVIXB_BYTES_NUL | TVIXB_BYTES_BYTE,
              .byte = '='}};

static const tvixb_bytes_rule tvixb_rule_env_value = {
    .bytes = {.code = TVIXB_CODE_INVALID_ENV_VALUE,
              .expected = "an environment value without NUL",
              .max = UINT64_MAX,
              .forbidden = TVIXB_BYTES_NUL}};

static const tvixb_bytes_rule tvixb_rule_ro_path = {
    .bytes = {.code = TVIXB_CODE_INVALID_PATH,
              .expected = "a clean absolute path outside /nix/store (no empty, "
                          "\".\" or \"..\" component, no redundant slash, no "
                          "NUL)",
              .min = 1,
              .max = UINT64_MAX,
              .forbidden = TVIXB_BYTES_NUL,
              .extra_check = tvixb_rule_is_path_outside_store,
              .extra_check_size_max = SIZE_MAX}};

static const tvixb_bytes_rule tvixb_rule_no_name = {
    .bytes = {.code = TVIXB_CODE_INVALID_NAME,
              .expected = "no name, because the request "
                          "has the path"}};

static const tvixb_bytes_rule tvixb_rule_directory_path = {
    .bytes = {.code = TVIXB_CODE_INVALID_PATH,
              .expected = TVIXB_RELATIVE_PATH " or an empty path",
              .max = UINT64_MAX,
              .forbidden = TVIXB_BYTES_NUL,
              .extra_check = tvixb_rule_is_relative_path,
              .extra_check_size_max = SIZE_MAX}};

static const tvixb_bytes_rule tvixb_rule_relative_path = {
    .bytes = {.code = TVIXB_CODE_INVALID_PATH,
              .expected = TVIXB_RELATIVE_PATH,
              .min = 1,
              .max = UINT64_MAX,
              .forbidden = TVIXB_BYTES_NUL,
              .extra_check = tvixb_rule_is_relative_path,
              .extra_check_size_max = SIZE_MAX}};

static const tvixb_bytes_rule tvixb_rule_file_path = {
    .bytes = {.code = TVIXB_CODE_INVALID_PATH,
              .expected = TVIXB_RELATIVE_PATH " outside inputs_dir",
              .min = 1,
              .max = UINT64_MAX,
              .forbidden = TVIXB_BYTES_NUL,
              .extra_check = tvixb_rule_is_relative_path,
              .extra_check_size_max = SIZE_MAX,
              .forbidden_prefix = TVIXB_PREFIX_RELATIVE}};

static const tvixb_bytes_rule tvixb_rule_host_path = {
    .bytes = {.code = TVIXB_CODE_INVALID_PATH,
              .expected = "a clean absolute path outside inputs_dir (no empty, "
                          "\".\" or \"..\" component, no redundant slash, no "
                          "NUL)",
              .min = 1,
              .max = UINT64_MAX,
              .forbidden = TVIXB_BYTES_NUL,
              .extra_check = tvixb_rule_is_absolute_path,
              .extra_check_size_max = SIZE_MAX,
              .forbidden_prefix = TVIXB_PREFIX_ABSOLUTE}};

static const tvixb_bytes_rule tvixb_rule_output_path = {
    .bytes = {.code = TVIXB_CODE_INVALID_PATH,
              .expected = TVIXB_RELATIVE_PATH
              " whose last component has at most 255 bytes",
              .min = 1,
              .max = UINT64_MAX,
              .forbidden = TVIXB_BYTES_NUL,
              .extra_check = tvixb_rule_is_output_path,
              .extra_check_size_max = SIZE_MAX}};

static const tvixb_bytes_rule tvixb_rule_schema = {
    .bytes = {.code = TVIXB_CODE_INVALID_NAME,
              .expected = "\"" TVIXB_SCHEMA_TVIX_BUILD_V1
                          "\", \"" TVIXB_SCHEMA_TVIX_BUILD_V1_2024
                          "\" or \"" TVIXB_SCHEMA_SNIX_BUILD_V1 "\"",
              .min = 1,
              .max = UINT64_MAX,
              .extra_check = tvixb_rule_is_schema,
              .extra_check_size_max = SIZE_MAX}};

static const tvixb_bytes_rule tvixb_rule_needle = {
    .bytes = {.code = TVIXB_CODE_INVALID_NEEDLE,
              .expected = "a non-empty needle",
              .min = 1,
              .max = UINT64_MAX}};

static const tvixb_number_rule tvixb_rule_needle_index = {
    .number = {.code = TVIXB_CODE_INVALID_NEEDLE,
               .expected = "an index into the request's "
                           "refscan_needles",
               .max = UINT64_MAX}};

#endif  // TVIXB_SCHEMA_RULES_H
