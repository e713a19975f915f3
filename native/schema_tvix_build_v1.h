// SPDX-License-Identifier: MIT
//
// tvix.build.v1, as of December 2023 (r/7151). The comments in proto/ describe
// the rules.
#ifndef TVIXB_SCHEMA_TVIX_BUILD_V1_H
#define TVIXB_SCHEMA_TVIX_BUILD_V1_H

#include "schema_castore.h"
#include "schema_rows.h"

#define TVIX_ENV_VAR(F)           \
  F(1, KEY, STRING, key, env_key) \
  F(2, SINGLE, BYTES, value, env_value)
TVIXB_MESSAGE(tvix_env_var, TVIX_ENV_VAR)

#define TVIX_BUILD_CONSTRAINTS(F)                      \
  F(1, SINGLE, STRING, system, none, .required = true) \
  F(2, SINGLE, UINT64, min_memory, none)               \
  F(3, SORTED, STRING, available_ro_paths, ro_path)
TVIXB_MESSAGE(tvix_build_constraints, TVIX_BUILD_CONSTRAINTS)

#define TVIX_BUILD_REQUEST(F)                                      \
  F(1, REPEATED, STRING, command_args, argument, .required = true) \
  F(2, SORTED, STRING, outputs, name)                              \
  F(3, SORTED, MESSAGE(tvix_env_var), environment_vars, none)      \
  F(4, SORTED, MESSAGE(node), inputs, none)                        \
  F(5, SINGLE, MESSAGE(tvix_build_constraints), constraints, none)
TVIXB_MESSAGE(tvix_build_request, TVIX_BUILD_REQUEST)

#define TVIX_BUILD(F)                                            \
  F(1, SINGLE, MESSAGE(tvix_build_request), build_request, none, \
    .required = true)                                            \
  F(2, SORTED, MESSAGE(node), outputs, none)
TVIXB_MESSAGE(tvix_build, TVIX_BUILD)

static const tvixb_relation tvix_build_request_relations[] = {
    {.left = TVIXB_LIST(tvix_build_request, outputs),
     .right = TVIXB_LIST(tvix_build_request, inputs),
     .forbidden = true,
     .code = TVIXB_CODE_OUTPUT_IS_INPUT},
};

static const tvixb_relation tvix_build_relations[] = {
    {.left = TVIXB_LIST(tvix_build, build_request.outputs),
     .right = TVIXB_LIST(tvix_build, build_request.inputs),
     .forbidden = true,
     .code = TVIXB_CODE_OUTPUT_IS_INPUT},
    {.left = TVIXB_LIST(tvix_build, build_request.outputs),
     .right = TVIXB_LIST(tvix_build, outputs),
     .code = TVIXB_CODE_MISSING_OUTPUT},
    {.left = TVIXB_LIST(tvix_build, outputs),
     .right = TVIXB_LIST(tvix_build, build_request.outputs),
     .code = TVIXB_CODE_UNEXPECTED_OUTPUT},
};

static const struct tvixb_kind tvix_build_v1[] = {
    TVIXB_KIND("tvix.build.v1.BuildRequest", tvix_build_request,
               TVIXB_RELATIONS(tvix_build_request_relations)),
    TVIXB_KIND("tvix.build.v1.Build", tvix_build,
               TVIXB_RELATIONS(tvix_build_relations)),
    {0},
};

#endif  // TVIXB_SCHEMA_TVIX_BUILD_V1_H
