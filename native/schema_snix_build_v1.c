// SPDX-License-Identifier: MIT
//
// The tables of snix.build.v1, with scan functions for any CPU.
#define TVIXB_SCHEMA_NAME tvixb_schema_snix_build_v1
#include "schema_snix_build_v1.h"
