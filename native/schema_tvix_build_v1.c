// SPDX-License-Identifier: MIT
//
// The tables of tvix.build.v1, with scan functions for any CPU.
#define TVIXB_SCHEMA_NAME tvixb_schema_tvix_build_v1
#include "schema_tvix_build_v1.h"
