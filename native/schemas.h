// SPDX-License-Identifier: MIT
//
// The list of all schemas. A file for each CPU level includes this and defines
// TVIXB_SCHEMAS, the name of the table.
#include "schema_castore.h"
#include "schema_plan_v1.h"
#include "schema_snix_build_v1.h"
#include "schema_tvix_build_v1.h"

const struct tvixb_kind* const TVIXB_SCHEMAS[] = {
    tvix_build_v1, snix_build_v1, castore, plan_v1, NULL,
};
