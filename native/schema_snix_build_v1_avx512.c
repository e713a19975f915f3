// SPDX-License-Identifier: MIT
//
// The same tables, their scan functions compiled for AVX-512.
#include "cpu.h"

TVIXB_REST_AVX512

#ifdef TVIXB_HAVE_AVX512
#define TVIXB_SCHEMA_NAME tvixb_schema_snix_build_v1_avx512
#include "schema_snix_build_v1.h"
#endif
