// SPDX-License-Identifier: MIT
//
// The tables of tvix.build.v1, with scan functions for CPUs with AVX-512.
#define TVIXB_FOR_AVX512
#include "cpu.h"

#ifdef TVIXB_HAVE_AVX512
#define TVIXB_SCHEMA_NAME tvixb_schema_tvix_build_v1_avx512
#include "schema_tvix_build_v1.h"
#endif
