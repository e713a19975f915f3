// SPDX-License-Identifier: MIT
//
// The tables of snix.build.v1 and its castore, since 2025, and of
// tvix.build.v1@2024, the last version of tvix, which has the same
// BuildRequest. The comments in proto/ describe the rules. A file for each CPU
// level includes this and defines TVIXB_SCHEMA_NAME, the name of the table of
// kinds.
#include "scan_message.h"
#include "schema.h"
#include "schema_rows.h"
#include "tvix_build.h"

#define CASTORE_TABLE(name) name
#define CASTORE_SCAN(name) scan_##name
#define CASTORE_NAMED 1
#include "schema_castore.h"

// For responses, whose nodes have no names, because the request has them.
#define CASTORE_TABLE(name) nameless_##name
#define CASTORE_SCAN(name) scan_nameless_##name
#define CASTORE_NAMED 0
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
                   .rule = TVIXB_RULE_HOST_PATH,
                   .list = 5},
            [4] = {.name = "network_access", TYPE(4, BOOL)},
            [5] = {.name = "provide_bin_sh", TYPE(5, BOOL)},
        },
    .needed = BIT(1),
    .scan = scan_build_constraints,
};

TVIXB_SCAN_MESSAGE(build_constraints)

static tvixb_scan_function scan_additional_file;

static const tvixb_message additional_file = {
    .fields =
        {
            [1] = {.name = "path",
                   TYPE(1, STRING),
                   .rule = TVIXB_RULE_FILE_PATH,
                   .key = true},
            [2] = {.name = "contents", TYPE(2, BYTES)},
        },
    .needed = BIT(1),
    .scan = scan_additional_file,
};

TVIXB_SCAN_MESSAGE(additional_file)

static tvixb_scan_function scan_build_request;

static const tvixb_message build_request = {
    .fields =
        {
            [1] = {.name = "inputs",
                   TYPE(1, MESSAGE),
                   .message = &node,
                   .repeated = true,
                   .list = 1},
            [2] = {.name = "command_args",
                   TYPE(2, STRING),
                   .repeated = true,
                   .rule = TVIXB_RULE_ARGUMENT,
                   .required = true},
            [3] = {.name = "working_dir",
                   TYPE(3, STRING),
                   .rule = TVIXB_RULE_DIRECTORY_PATH},
            [4] = {.name = "scratch_paths",
                   TYPE(4, STRING),
                   .repeated = true,
                   .rule = TVIXB_RULE_RELATIVE_PATH,
                   .list = 2},
            [5] = {.name = "inputs_dir",
                   TYPE(5, STRING),
                   .rule = TVIXB_RULE_DIRECTORY_PATH,
                   .path_prefix = true},
            [6] = {.name = "outputs",
                   TYPE(6, STRING),
                   .repeated = true,
                   .rule = TVIXB_RULE_RELATIVE_PATH,
                   .list = 3},
            [7] = {.name = "environment_vars",
                   TYPE(7, MESSAGE),
                   .message = &env_var,
                   .repeated = true,
                   .list = 4},
            [8] = {.name = "constraints",
                   TYPE(8, MESSAGE),
                   .message = &build_constraints},
            [9] = {.name = "additional_files",
                   TYPE(9, MESSAGE),
                   .message = &additional_file,
                   .repeated = true,
                   .list = 6},
            [10] = {.name = "refscan_needles",
                    TYPE(10, STRING),
                    .repeated = true,
                    .rule = TVIXB_RULE_NEEDLE,
                    .count = TVIXB_COUNT_NEEDLES},
        },
    .needed = BIT(2),
    .scan = scan_build_request,
};

TVIXB_SCAN_MESSAGE(build_request)

static tvixb_scan_function scan_output_needles;

static const tvixb_message output_needles = {
    .fields = {[1] = {.name = "needles",
                      TYPE(1, PACKED),
                      .rule = TVIXB_RULE_NEEDLE_INDEX,
                      .limit = TVIXB_COUNT_NEEDLES}},
    .scan = scan_output_needles,
};

TVIXB_SCAN_MESSAGE(output_needles)

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
                   .list = 7},
            [3] = {.name = "outputs_needles",
                   TYPE(3, MESSAGE),
                   .message = &output_needles,
                   .repeated = true,
                   .list = 8,
                   .unkeyed = true},
        },
    .needed = BIT(1),
    .scan = scan_build,
};

TVIXB_SCAN_MESSAGE(build)

static tvixb_scan_function scan_output;

static const tvixb_message output = {
    .fields =
        {
            [1] = {.name = "output",
                   TYPE(1, MESSAGE),
                   .message = &nameless_node,
                   .required = true},
            [2] = {.name = "needles",
                   TYPE(2, PACKED),
                   .rule = TVIXB_RULE_NEEDLE_INDEX,
                   .limit = TVIXB_COUNT_NEEDLES},
        },
    .needed = BIT(1),
    .scan = scan_output,
};

TVIXB_SCAN_MESSAGE(output)

static tvixb_scan_function scan_build_response;

static const tvixb_message build_response = {
    .fields = {[1] = {.name = "outputs",
                      TYPE(1, MESSAGE),
                      .message = &output,
                      .repeated = true,
                      .count = TVIXB_COUNT_OUTPUTS}},
    .scan = scan_build_response,
};

TVIXB_SCAN_MESSAGE(build_response)

// Lists: 1 inputs, 2 scratch_paths, 3 outputs, 4 environment_vars, 5
// available_ro_paths, 6 additional_files, and in a Build 7 outputs and 8
// outputs_needles. The request's relation comes first.
static const tvixb_relation relations[] = {
    {.left = 3,
     .right = 1,
     .forbidden = true,
     .code = TVIXB_CODE_OUTPUT_IS_INPUT,
     .match = TVIXB_MATCH_BELOW_PREFIX},
    {.left = 3,
     .right = 7,
     .code = TVIXB_CODE_MISSING_OUTPUT,
     .match = TVIXB_MATCH_BASE_NAME,
     .unmatched_code = TVIXB_CODE_UNEXPECTED_OUTPUT},
};

const struct tvixb_kind TVIXB_SCHEMA_NAME[] = {
    {
        .name = "snix.build.v1.BuildRequest",
        .message = &build_request,
        .relations = relations,
        .relation_count = 1,
        .list_count = 6,
    },
    {
        .name = "snix.build.v1.BuildResponse",
        .message = &build_response,
        .packed_lists = true,
        .caller_count = TVIXB_COUNT_NEEDLES,
        .length = {.field = 1,
                   .count = TVIXB_COUNT_OUTPUTS,
                   .missing_code = TVIXB_CODE_MISSING_OUTPUT,
                   .unexpected_code = TVIXB_CODE_UNEXPECTED_OUTPUT,
                   .expected = "as many outputs as the request has"},
    },
    {
        .name = "snix.castore.v1.Directory",
        .message = &directory,
        .list_count = 3,
        .shared_keys = true,
        .overflow_code = TVIXB_CODE_SIZE_OVERFLOW,
    },
    {
        .name = "tvix.build.v1@2024.BuildRequest",
        .message = &build_request,
        .relations = relations,
        .relation_count = 1,
        .list_count = 6,
    },
    {
        .name = "tvix.build.v1@2024.Build",
        .message = &build,
        .relations = relations,
        .relation_count = 2,
        .list_count = 8,
        .packed_lists = true,
        .parallel = {.list = 8,
                     .keyed_list = 7,
                     .code = TVIXB_CODE_NEEDLES_MISMATCH},
    },
    {0},
};
