// SPDX-License-Identifier: MIT
//
// castore, which every schema has in its own package: nodes, which snix calls
// entries, and Directory. The wire format is the same in all packages.
#ifndef TVIXB_SCHEMA_CASTORE_H
#define TVIXB_SCHEMA_CASTORE_H

#include "schema_rows.h"

#define DIRECTORY_NODE(F, label, name_rule) \
  F(1, label, BYTES, name, name_rule)       \
  F(2, SINGLE, BYTES, digest, digest)       \
  F(3, SINGLE, UINT64, size, none, .adds_to_total = true)

#define FILE_NODE(F, label, name_rule) \
  F(1, label, BYTES, name, name_rule)  \
  F(2, SINGLE, BYTES, digest, digest)  \
  F(3, SINGLE, UINT64, size, none)     \
  F(4, SINGLE, BOOL, executable, none)

#define SYMLINK_NODE(F, label, name_rule) \
  F(1, label, BYTES, name, name_rule)     \
  F(2, SINGLE, BYTES, target, symlink_target)

// Nodes whose name is their key.
#define NAMED_DIRECTORY_NODE(F) DIRECTORY_NODE(F, KEY, name)
#define NAMED_FILE_NODE(F) FILE_NODE(F, KEY, name)
#define NAMED_SYMLINK_NODE(F) SYMLINK_NODE(F, KEY, name)
TVIXB_MESSAGE(directory_node, NAMED_DIRECTORY_NODE)
TVIXB_MESSAGE(file_node, NAMED_FILE_NODE)
TVIXB_MESSAGE(symlink_node, NAMED_SYMLINK_NODE)

#define NODE(F)                                         \
  F(1, ONEOF, MESSAGE(directory_node), directory, none) \
  F(2, ONEOF, MESSAGE(file_node), file, none)           \
  F(3, ONEOF, MESSAGE(symlink_node), symlink, none)
TVIXB_MESSAGE(node, NODE)

// Nodes of responses whose names the request has.
#define NAMELESS_DIRECTORY_NODE(F) DIRECTORY_NODE(F, SINGLE, no_name)
#define NAMELESS_FILE_NODE(F) FILE_NODE(F, SINGLE, no_name)
#define NAMELESS_SYMLINK_NODE(F) SYMLINK_NODE(F, SINGLE, no_name)
TVIXB_MESSAGE(nameless_directory_node, NAMELESS_DIRECTORY_NODE)
TVIXB_MESSAGE(nameless_file_node, NAMELESS_FILE_NODE)
TVIXB_MESSAGE(nameless_symlink_node, NAMELESS_SYMLINK_NODE)

#define NAMELESS_NODE(F)                                         \
  F(1, ONEOF, MESSAGE(nameless_directory_node), directory, none) \
  F(2, ONEOF, MESSAGE(nameless_file_node), file, none)           \
  F(3, ONEOF, MESSAGE(nameless_symlink_node), symlink, none)
TVIXB_MESSAGE(nameless_node, NAMELESS_NODE)

#define DIRECTORY(F)                                       \
  F(1, SORTED, MESSAGE(directory_node), directories, none) \
  F(2, SORTED, MESSAGE(file_node), files, none)            \
  F(3, SORTED, MESSAGE(symlink_node), symlinks, none)
TVIXB_MESSAGE(directory, DIRECTORY)

#define DIRECTORY_KIND(name)                       \
  TVIXB_KIND(name, directory, .shared_keys = true, \
             .overflow_code = TVIXB_CODE_SIZE_OVERFLOW)

static const struct tvixb_kind castore[] = {
    DIRECTORY_KIND("tvix.castore.v1.Directory"),
    DIRECTORY_KIND("snix.castore.v1.Directory"),
    {0},
};

#endif  // TVIXB_SCHEMA_CASTORE_H
