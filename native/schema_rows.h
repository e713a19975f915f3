// SPDX-License-Identifier: MIT
//
// Shorthands for the rows of schemas.
#ifndef TVIXB_SCHEMA_ROWS_H
#define TVIXB_SCHEMA_ROWS_H

#include "scan_message.h"
#include "schema.h"
#include "schema_rules.h"

#define BIT(number) (1u << (number))

// A field's tag and type.
#define TYPE(number, name) \
  .tag = (number) << 3 | TVIXB_TYPE_##name##_WIRE, .type = TVIXB_TYPE_##name

// TVIXB_SCAN_MESSAGE where the table's name is made by a macro.
#define TVIXB_SCAN_TABLE(table) TVIXB_SCAN_MESSAGE(table)

#endif  // TVIXB_SCHEMA_ROWS_H
