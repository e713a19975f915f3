// SPDX-License-Identifier: MIT
//
// tvix.build.v1 and its castore, as of December 2023 (r/7151). The rules stand
// beside the fields in proto/.
#include "schema.h"
#include "tvix_build.h"

#define BIT(number) (1u << (number))

static const tvixb_message directory_node = {
    .name = "tvix.castore.v1.DirectoryNode",
    .fields =
        {
            [1] = {.name = "name",
                   .type = TVIXB_TYPE_BYTES,
                   .rule = TVIXB_RULE_NAME,
                   .key = true},
            [2] = {.name = "digest",
                   .type = TVIXB_TYPE_BYTES,
                   .rule = TVIXB_RULE_DIGEST},
            [3] = {.name = "size", .type = TVIXB_TYPE_UINT64, .size = true},
        },
    .needed = BIT(1) | BIT(2),
};

static const tvixb_message file_node = {
    .name = "tvix.castore.v1.FileNode",
    .fields =
        {
            [1] = {.name = "name",
                   .type = TVIXB_TYPE_BYTES,
                   .rule = TVIXB_RULE_NAME,
                   .key = true},
            [2] = {.name = "digest",
                   .type = TVIXB_TYPE_BYTES,
                   .rule = TVIXB_RULE_DIGEST},
            [3] = {.name = "size", .type = TVIXB_TYPE_UINT64},
            [4] = {.name = "executable", .type = TVIXB_TYPE_BOOL},
        },
    .needed = BIT(1) | BIT(2),
};

static const tvixb_message symlink_node = {
    .name = "tvix.castore.v1.SymlinkNode",
    .fields =
        {
            [1] = {.name = "name",
                   .type = TVIXB_TYPE_BYTES,
                   .rule = TVIXB_RULE_NAME,
                   .key = true},
            [2] = {.name = "target",
                   .type = TVIXB_TYPE_BYTES,
                   .rule = TVIXB_RULE_SYMLINK_TARGET},
        },
    .needed = BIT(1) | BIT(2),
};

static const tvixb_message node = {
    .name = "tvix.castore.v1.Node",
    .fields =
        {
            [1] = {.name = "directory",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &directory_node,
                   .oneof = true},
            [2] = {.name = "file",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &file_node,
                   .oneof = true},
            [3] = {.name = "symlink",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &symlink_node,
                   .oneof = true},
        },
    .oneof = BIT(1) | BIT(2) | BIT(3),
};

static const tvixb_message env_var = {
    .name = "tvix.build.v1.BuildRequest.EnvVar",
    .fields =
        {
            [1] = {.name = "key",
                   .type = TVIXB_TYPE_STRING,
                   .rule = TVIXB_RULE_ENV_KEY,
                   .key = true},
            [2] = {.name = "value",
                   .type = TVIXB_TYPE_BYTES,
                   .rule = TVIXB_RULE_ENV_VALUE},
        },
    .needed = BIT(1),
};

static const tvixb_message build_constraints = {
    .name = "tvix.build.v1.BuildRequest.BuildConstraints",
    .fields =
        {
            [1] = {.name = "system",
                   .type = TVIXB_TYPE_STRING,
                   .required = true},
            [2] = {.name = "min_memory", .type = TVIXB_TYPE_UINT64},
            [3] = {.name = "available_ro_paths",
                   .type = TVIXB_TYPE_STRING,
                   .repeated = true,
                   .rule = TVIXB_RULE_RO_PATH,
                   .list = 4},
        },
    .needed = BIT(1),
};

static const tvixb_message build_request = {
    .name = "tvix.build.v1.BuildRequest",
    .fields =
        {
            [1] = {.name = "command_args",
                   .type = TVIXB_TYPE_STRING,
                   .repeated = true,
                   .rule = TVIXB_RULE_ARGUMENT,
                   .required = true},
            [2] = {.name = "outputs",
                   .type = TVIXB_TYPE_STRING,
                   .repeated = true,
                   .rule = TVIXB_RULE_NAME,
                   .list = 1},
            [3] = {.name = "environment_vars",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &env_var,
                   .repeated = true,
                   .list = 2},
            [4] = {.name = "inputs",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &node,
                   .repeated = true,
                   .list = 3},
            [5] = {.name = "constraints",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &build_constraints},
        },
    .needed = BIT(1),
};

static const tvixb_message build = {
    .name = "tvix.build.v1.Build",
    .fields =
        {
            [1] = {.name = "build_request",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &build_request,
                   .required = true},
            [2] = {.name = "outputs",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &node,
                   .repeated = true,
                   .list = 5},
        },
    .needed = BIT(1),
};

static const tvixb_message directory = {
    .name = "tvix.castore.v1.Directory",
    .fields =
        {
            [1] = {.name = "directories",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &directory_node,
                   .repeated = true,
                   .list = 1},
            [2] = {.name = "files",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &file_node,
                   .repeated = true,
                   .list = 2},
            [3] = {.name = "symlinks",
                   .type = TVIXB_TYPE_MESSAGE,
                   .message = &symlink_node,
                   .repeated = true,
                   .list = 3},
        },
};

// Lists: 1 outputs, 2 environment_vars, 3 inputs, 4 available_ro_paths, and in
// a Build 5 outputs. The request's relations come first.
static const tvixb_relation relations[] = {
    {.left = 1,
     .right = 3,
     .present = true,
     .code = TVIXB_CODE_OUTPUT_IS_INPUT},
    {.left = 1,
     .right = 5,
     .present = false,
     .code = TVIXB_CODE_MISSING_OUTPUT},
    {.left = 5,
     .right = 1,
     .present = false,
     .code = TVIXB_CODE_UNEXPECTED_OUTPUT},
};

const struct tvixb_kind tvixb_kind_tvix_build_v1_build_request = {
    .name = "tvix.build.v1.BuildRequest",
    .message = &build_request,
    .relations = relations,
    .relation_count = 1,
    .list_count = 4,
};

const struct tvixb_kind tvixb_kind_tvix_build_v1_build = {
    .name = "tvix.build.v1.Build",
    .message = &build,
    .relations = relations,
    .relation_count = 3,
    .list_count = 5,
};

const struct tvixb_kind tvixb_kind_tvix_castore_v1_directory = {
    .name = "tvix.castore.v1.Directory",
    .message = &directory,
    .list_count = 3,
    .directory = true,
};
