// SPDX-License-Identifier: MIT
//
// snix.build.v1, since 2025, and tvix.build.v1@2024, the last version of tvix,
// which has the same BuildRequest. The comments in proto/ describe the rules.
#ifndef TVIXB_SCHEMA_SNIX_BUILD_V1_H
#define TVIXB_SCHEMA_SNIX_BUILD_V1_H

#include "schema_castore.h"
#include "schema_rows.h"

#define SNIX_ENV_VAR(F)           \
  F(1, KEY, STRING, key, env_key) \
  F(2, SINGLE, BYTES, value, env_value)
TVIXB_MESSAGE(snix_env_var, SNIX_ENV_VAR)

#define SNIX_BUILD_CONSTRAINTS(F)                      \
  F(1, SINGLE, STRING, system, none, .required = true) \
  F(2, SINGLE, UINT64, min_memory, none)               \
  F(3, SORTED, STRING, available_ro_paths, host_path)  \
  F(4, SINGLE, BOOL, network_access, none)             \
  F(5, SINGLE, BOOL, provide_bin_sh, none)
TVIXB_MESSAGE(snix_build_constraints, SNIX_BUILD_CONSTRAINTS)

#define SNIX_ADDITIONAL_FILE(F)      \
  F(1, KEY, STRING, path, file_path) \
  F(2, SINGLE, BYTES, contents, none)
TVIXB_MESSAGE(snix_additional_file, SNIX_ADDITIONAL_FILE)

#define SNIX_BUILD_REQUEST(F)                                           \
  F(1, SORTED, MESSAGE(node), inputs, none)                             \
  F(2, REPEATED, STRING, command_args, argument, .required = true)      \
  F(3, SINGLE, STRING, working_dir, directory_path)                     \
  F(4, SORTED, STRING, scratch_paths, relative_path)                    \
  F(5, SINGLE, STRING, inputs_dir, directory_path, .path_prefix = true) \
  F(6, SORTED, STRING, outputs, relative_path)                          \
  F(7, SORTED, MESSAGE(snix_env_var), environment_vars, none)           \
  F(8, SINGLE, MESSAGE(snix_build_constraints), constraints, none)      \
  F(9, SORTED, MESSAGE(snix_additional_file), additional_files, none)   \
  F(10, COUNTED(TVIXB_COUNT_NEEDLES), STRING, refscan_needles, needle)
TVIXB_MESSAGE(snix_build_request, SNIX_BUILD_REQUEST)

#define TVIX_OUTPUT_NEEDLES(F) \
  F(1, SINGLE, PACKED(TVIXB_COUNT_NEEDLES), needles, needle_index)
TVIXB_MESSAGE(tvix_output_needles, TVIX_OUTPUT_NEEDLES)

// Build of tvix.build.v1@2024.
#define TVIX_BUILD_2024(F)                                       \
  F(1, SINGLE, MESSAGE(snix_build_request), build_request, none, \
    .required = true)                                            \
  F(2, SORTED, MESSAGE(node), outputs, none)                     \
  F(3, PARALLEL, MESSAGE(tvix_output_needles), outputs_needles, none)
TVIXB_MESSAGE(tvix_build_2024, TVIX_BUILD_2024)

#define SNIX_OUTPUT(F)                                                 \
  F(1, SINGLE, MESSAGE(nameless_node), output, none, .required = true) \
  F(2, SINGLE, PACKED(TVIXB_COUNT_NEEDLES), needles, needle_index)
TVIXB_MESSAGE(snix_output, SNIX_OUTPUT)

#define SNIX_BUILD_RESPONSE(F) \
  F(1, COUNTED(TVIXB_COUNT_OUTPUTS), MESSAGE(snix_output), outputs, none)
TVIXB_MESSAGE(snix_build_response, SNIX_BUILD_RESPONSE)

static const tvixb_relation snix_build_request_relations[] = {
    {.left = TVIXB_LIST(snix_build_request, outputs),
     .right = TVIXB_LIST(snix_build_request, inputs),
     .forbidden = true,
     .code = TVIXB_CODE_OUTPUT_IS_INPUT,
     .match = TVIXB_MATCH_BELOW_PREFIX},
};

static const tvixb_relation tvix_build_2024_relations[] = {
    {.left = TVIXB_LIST(tvix_build_2024, build_request.outputs),
     .right = TVIXB_LIST(tvix_build_2024, build_request.inputs),
     .forbidden = true,
     .code = TVIXB_CODE_OUTPUT_IS_INPUT,
     .match = TVIXB_MATCH_BELOW_PREFIX},
    {.left = TVIXB_LIST(tvix_build_2024, build_request.outputs),
     .right = TVIXB_LIST(tvix_build_2024, outputs),
     .code = TVIXB_CODE_MISSING_OUTPUT,
     .match = TVIXB_MATCH_BASE_NAME,
     .unmatched_code = TVIXB_CODE_UNEXPECTED_OUTPUT},
};

static const struct tvixb_kind snix_build_v1[] = {
    TVIXB_KIND("snix.build.v1.BuildRequest", snix_build_request,
               TVIXB_RELATIONS(snix_build_request_relations)),
    TVIXB_KIND("snix.build.v1.BuildResponse", snix_build_response,
               .length = {.field = 1,
                          .missing_code = TVIXB_CODE_MISSING_OUTPUT,
                          .unexpected_code = TVIXB_CODE_UNEXPECTED_OUTPUT,
                          .expected = "as many outputs as the request has"}),
    TVIXB_KIND("tvix.build.v1@2024.BuildRequest", snix_build_request,
               TVIXB_RELATIONS(snix_build_request_relations)),
    TVIXB_KIND(
        "tvix.build.v1@2024.Build", tvix_build_2024,
        TVIXB_RELATIONS(tvix_build_2024_relations),
        .parallel = {.list = TVIXB_LIST(tvix_build_2024, outputs_needles),
                     .keyed_list = TVIXB_LIST(tvix_build_2024, outputs),
                     .code = TVIXB_CODE_NEEDLES_MISMATCH}),
    {0},
};

#endif  // TVIXB_SCHEMA_SNIX_BUILD_V1_H
