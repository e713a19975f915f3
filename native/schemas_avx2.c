// SPDX-License-Identifier: MIT
//
// The schemas, with scan functions for CPUs with AVX2.
#define TVIXB_FOR_AVX2
#include "cpu.h"

#ifdef TVIXB_HAVE_AVX2
#define TVIXB_SCHEMAS tvixb_schemas_avx2
#include "schemas.h"
#endif
