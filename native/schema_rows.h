// SPDX-License-Identifier: MIT
//
// Macros for the rows of schema tables.
#ifndef TVIXB_SCHEMA_ROWS_H
#define TVIXB_SCHEMA_ROWS_H

#include "scan_message.h"
#include "schema.h"
#include "schema_rules.h"

#define BIT(number) (1u << (number))

// The tag and type of a field.
#define TYPE(number, name) \
  .tag = (number) << 3 | TVIXB_TYPE_##name##_WIRE, .type = TVIXB_TYPE_##name

// TVIXB_SCAN_MESSAGE for a table whose name is a macro.
#define TVIXB_SCAN_TABLE(table) TVIXB_SCAN_MESSAGE(table)

#endif  // TVIXB_SCHEMA_ROWS_H
