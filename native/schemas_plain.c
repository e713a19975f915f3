// SPDX-License-Identifier: MIT
//
// The schemas, with scan functions for any CPU.
#define TVIXB_SCHEMAS tvixb_schemas_plain
#include "schemas.h"
