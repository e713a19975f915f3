// SPDX-License-Identifier: MIT
//
// The schemas, with scan functions for CPUs with AVX-512.
#define TVIXB_FOR_AVX512
#include "cpu.h"

#ifdef TVIXB_HAVE_AVX512
#define TVIXB_SCHEMAS tvixb_schemas_avx512
#include "schemas.h"
#endif
