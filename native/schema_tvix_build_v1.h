// SPDX-License-Identifier: MIT
//
// The tables of tvix.build.v1 and its castore, as of December 2023 (r/7151).
// The comments in proto/ describe the rules. A file for each CPU level includes
// this and defines TVIXB_SCHEMA_NAME, the name of the table of kinds.
#include "scan_message.h"
#include "schema.h"
#include "schema_rows.h"
#include "tvix_build.h"

#define CASTORE_TABLE(name) name
#define CASTORE_SCAN(name) scan_##name
#define CASTORE_NAMED 1
#include "schema_castore.h"

static tvixb_scan_function scan_env_var;

static const tvixb_message env_var = {
    .fields =
        {
            [1] = {.name = "key",
                   TYPE(1, STRING),
                   .rule = TVIXB_RULE_ENV_KEY,
                   .key = true},
            [2] = {.name = "value",
                   TYPE(2, BYTES),
                   .rule = TVIXB_RULE_ENV_VALUE},
        },
    .needed = BIT(1),
    .scan = scan_env_var,
};

TVIXB_SCAN_MESSAGE(env_var)

static tvixb_scan_function scan_build_constraints;

static const tvixb_message build_constraints = {
    .fields =
        {
            [1] = {.name = "system", TYPE(1, STRING), .required = true},
            [2] = {.name = "min_memory", TYPE(2, UINT64)},
            [3] = {.name = "available_ro_paths",
                   TYPE(3, STRING),
                   .repeated = true,
                   .rule = TVIXB_RULE_RO_PATH,
                   .list = 4},
        },
    .needed = BIT(1),
    .scan = scan_build_constraints,
};

TVIXB_SCAN_MESSAGE(build_constraints)

static tvixb_scan_function scan_build_request;

static const tvixb_message build_request = {
    .fields =
        {
            [1] = {.name = "command_args",
                   TYPE(1, STRING),
                   .repeated = true,
                   .rule = TVIXB_RULE_ARGUMENT,
                   .required = true},
            [2] = {.name = "outputs",
                   TYPE(2, STRING),
                   .repeated = true,
                   .rule = TVIXB_RULE_NAME,
                   .list = 1},
            [3] = {.name = "environment_vars",
                   TYPE(3, MESSAGE),
                   .message = &env_var,
                   .repeated = true,
                   .list = 2},
            [4] = {.name = "inputs",
                   TYPE(4, MESSAGE),
                   .message = &node,
                   .repeated = true,
                   .list = 3},
            [5] = {.name = "constraints",
                   TYPE(5, MESSAGE),
                   .message = &build_constraints},
        },
    .needed = BIT(1),
    .scan = scan_build_request,
};

TVIXB_SCAN_MESSAGE(build_request)

static tvixb_scan_function scan_build;

static const tvixb_message build = {
    .fields =
        {
            [1] = {.name = "build_request",
                   TYPE(1, MESSAGE),
                   .message = &build_request,
                   .required = true},
            [2] = {.name = "outputs",
                   TYPE(2, MESSAGE),
                   .message = &node,
                   .repeated = true,
                   .list = 5},
        },
    .needed = BIT(1),
    .scan = scan_build,
};

TVIXB_SCAN_MESSAGE(build)

// Lists: 1 outputs, 2 environment_vars, 3 inputs, 4 available_ro_paths, and in
// a Build 5 outputs. The request's relations come first.
static const tvixb_relation relations[] = {
    {.left = 1,
     .right = 3,
     .forbidden = true,
     .code = TVIXB_CODE_OUTPUT_IS_INPUT},
    {.left = 1,
     .right = 5,
     .forbidden = false,
     .code = TVIXB_CODE_MISSING_OUTPUT},
    {.left = 5,
     .right = 1,
     .forbidden = false,
     .code = TVIXB_CODE_UNEXPECTED_OUTPUT},
};

const struct tvixb_kind TVIXB_SCHEMA_NAME[] = {
    {
        .name = "tvix.build.v1.BuildRequest",
        .message = &build_request,
        .relations = relations,
        .relation_count = 1,
        .list_count = 4,
    },
    {
        .name = "tvix.build.v1.Build",
        .message = &build,
        .relations = relations,
        .relation_count = 3,
        .list_count = 5,
    },
    {
        .name = "tvix.castore.v1.Directory",
        .message = &directory,
        .list_count = 3,
        .shared_keys = true,
        .overflow_code = TVIXB_CODE_SIZE_OVERFLOW,
    },
    {0},
};
