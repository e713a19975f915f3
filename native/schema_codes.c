// SPDX-License-Identifier: MIT
//
// The names of codes, and the messages of those whose message does not depend
// on the field's rule.
#include "schema.h"
#include "tvix_build.h"

const tvixb_code_row tvixb_codes[TVIXB_CODE_COUNT] = {
    [TVIXB_CODE_MALFORMED] = {.name = "malformed"},
    [TVIXB_CODE_UNKNOWN_FIELD] = {.name = "unknown_field"},
    [TVIXB_CODE_REQUIRED] = {.name = "required"},
    [TVIXB_CODE_INVALID_ARG] = {.name = "invalid_arg"},
    [TVIXB_CODE_INVALID_NAME] = {.name = "invalid_name"},
    [TVIXB_CODE_INVALID_DIGEST] = {.name = "invalid_digest",
                                   .shown = TVIXB_SHOWN_NUMBER,
                                   .after = " bytes"},
    [TVIXB_CODE_INVALID_SYMLINK_TARGET] = {.name = "invalid_symlink_target"},
    [TVIXB_CODE_INVALID_ENV_KEY] = {.name = "invalid_env_key"},
    [TVIXB_CODE_INVALID_ENV_VALUE] = {.name = "invalid_env_value"},
    [TVIXB_CODE_INVALID_PATH] = {.name = "invalid_path"},
    [TVIXB_CODE_NOT_SORTED] = {.name = "not_sorted",
                               .before = "expected keys in ascending byte "
                                         "order, found ",
                               .after = " after a greater key"},
    [TVIXB_CODE_DUPLICATE] = {.name = "duplicate",
                              .before = "expected unique keys, found "
                                        "duplicate "},
    [TVIXB_CODE_OUTPUT_IS_INPUT] = {.name = "output_is_input",
                                    .before = "expected an output that is not "
                                              "an input, found "},
    [TVIXB_CODE_MISSING_OUTPUT] = {.name = "missing_output",
                                   .before = "expected a node for each output "
                                             "of the request, found none for "},
    [TVIXB_CODE_UNEXPECTED_OUTPUT] = {.name = "unexpected_output",
                                      .before = "expected only outputs of the "
                                                "request, found "},
    [TVIXB_CODE_SIZE_OVERFLOW] = {.name = "size_overflow",
                                  .before = "expected fewer than 2^64 elements "
                                            "below the directory, found more",
                                  .shown = TVIXB_SHOWN_NOTHING},
    [TVIXB_CODE_INVALID_NEEDLE] = {.name = "invalid_needle"},
    [TVIXB_CODE_NEEDLES_MISMATCH] = {.name = "needles_mismatch",
                                     .before =
                                         "expected no elements or one for "
                                         "each output, found ",
                                     .shown = TVIXB_SHOWN_NUMBER},
    [TVIXB_CODE_UNKNOWN_STEP] = {.name = "unknown_step",
                                 .shown = TVIXB_SHOWN_HEX,
                                 .before = "expected the digest of a step of "
                                           "the plan, found "},
    [TVIXB_CODE_UNREACHABLE_STEP] = {.name = "unreachable_step",
                                     .shown = TVIXB_SHOWN_HEX,
                                     .before = "expected a step that a root "
                                               "needs, found "},
};
