// SPDX-License-Identifier: MIT
//
// The same tables, their scan functions compiled for AVX-512.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,bmi2")
#endif

#include "cpu.h"

#ifdef TVIXB_HAVE_AVX512
#define TVIXB_SCHEMA_NAME tvixb_schema_tvix_build_v1_avx512
#include "schema_tvix_build_v1.h"
#endif
