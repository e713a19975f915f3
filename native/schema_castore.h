// SPDX-License-Identifier: MIT
//
// The castore tables of every schema: nodes, which snix calls entries, and
// Directory. The wire format is the same in all schemas. A file includes this
// once for each set of tables. It must first define CASTORE_TABLE(name) and
// CASTORE_SCAN(name), the names of a table and of its scan function, and
// CASTORE_NAMED: 1 if nodes have a name, which is their key; 0 if their name
// must be empty.
#if CASTORE_NAMED
#define CASTORE_NAME_RULE TVIXB_RULE_NAME
#else
#define CASTORE_NAME_RULE TVIXB_RULE_NO_NAME
#endif

static tvixb_scan_function CASTORE_SCAN(directory_node);

static const tvixb_message CASTORE_TABLE(directory_node) = {
    .fields =
        {
            [1] = {.name = "name",
                   TYPE(1, BYTES),
                   .rule = CASTORE_NAME_RULE,
                   .key = CASTORE_NAMED},
            [2] = {.name = "digest", TYPE(2, BYTES), .rule = TVIXB_RULE_DIGEST},
            [3] = {.name = "size", TYPE(3, UINT64), .adds_to_total = true},
        },
    .needed = (CASTORE_NAMED ? BIT(1) : 0) | BIT(2),
    .scan = CASTORE_SCAN(directory_node),
};

TVIXB_SCAN_TABLE(CASTORE_TABLE(directory_node))

static tvixb_scan_function CASTORE_SCAN(file_node);

static const tvixb_message CASTORE_TABLE(file_node) = {
    .fields =
        {
            [1] = {.name = "name",
                   TYPE(1, BYTES),
                   .rule = CASTORE_NAME_RULE,
                   .key = CASTORE_NAMED},
            [2] = {.name = "digest", TYPE(2, BYTES), .rule = TVIXB_RULE_DIGEST},
            [3] = {.name = "size", TYPE(3, UINT64)},
            [4] = {.name = "executable", TYPE(4, BOOL)},
        },
    .needed = (CASTORE_NAMED ? BIT(1) : 0) | BIT(2),
    .scan = CASTORE_SCAN(file_node),
};

TVIXB_SCAN_TABLE(CASTORE_TABLE(file_node))

static tvixb_scan_function CASTORE_SCAN(symlink_node);

static const tvixb_message CASTORE_TABLE(symlink_node) = {
    .fields =
        {
            [1] = {.name = "name",
                   TYPE(1, BYTES),
                   .rule = CASTORE_NAME_RULE,
                   .key = CASTORE_NAMED},
            [2] = {.name = "target",
                   TYPE(2, BYTES),
                   .rule = TVIXB_RULE_SYMLINK_TARGET},
        },
    .needed = (CASTORE_NAMED ? BIT(1) : 0) | BIT(2),
    .scan = CASTORE_SCAN(symlink_node),
};

TVIXB_SCAN_TABLE(CASTORE_TABLE(symlink_node))

static tvixb_scan_function CASTORE_SCAN(node);

static const tvixb_message CASTORE_TABLE(node) = {
    .fields =
        {
            [1] = {.name = "directory",
                   TYPE(1, MESSAGE),
                   .message = &CASTORE_TABLE(directory_node),
                   .oneof = true},
            [2] = {.name = "file",
                   TYPE(2, MESSAGE),
                   .message = &CASTORE_TABLE(file_node),
                   .oneof = true},
            [3] = {.name = "symlink",
                   TYPE(3, MESSAGE),
                   .message = &CASTORE_TABLE(symlink_node),
                   .oneof = true},
        },
    .oneof = BIT(1) | BIT(2) | BIT(3),
    .scan = CASTORE_SCAN(node),
};

TVIXB_SCAN_TABLE(CASTORE_TABLE(node))

#if CASTORE_NAMED

static tvixb_scan_function CASTORE_SCAN(directory);

static const tvixb_message CASTORE_TABLE(directory) = {
    .fields =
        {
            [1] = {.name = "directories",
                   TYPE(1, MESSAGE),
                   .message = &CASTORE_TABLE(directory_node),
                   .repeated = true,
                   .list = 1},
            [2] = {.name = "files",
                   TYPE(2, MESSAGE),
                   .message = &CASTORE_TABLE(file_node),
                   .repeated = true,
                   .list = 2},
            [3] = {.name = "symlinks",
                   TYPE(3, MESSAGE),
                   .message = &CASTORE_TABLE(symlink_node),
                   .repeated = true,
                   .list = 3},
        },
    .scan = CASTORE_SCAN(directory),
};

TVIXB_SCAN_TABLE(CASTORE_TABLE(directory))

#endif

#undef CASTORE_NAME_RULE
#undef CASTORE_NAMED
#undef CASTORE_SCAN
#undef CASTORE_TABLE
