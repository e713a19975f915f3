// SPDX-License-Identifier: MIT
//
// Finds kinds by name, in the schemas for this CPU's level.
#include <string.h>

#include "cpu.h"
#include "schema.h"
#include "tvix_build.h"

#define SCHEMA_COUNT 2

// The schemas for each CPU level.
static const tvixb_kind* const schemas[][SCHEMA_COUNT] = {
    [TVIXB_CPU_PLAIN] = {tvixb_schema_tvix_build_v1,
                         tvixb_schema_snix_build_v1},
#ifdef TVIXB_HAVE_AVX2
    [TVIXB_CPU_AVX2] = {tvixb_schema_tvix_build_v1_avx2,
                        tvixb_schema_snix_build_v1_avx2},
#endif
#ifdef TVIXB_HAVE_AVX512
    [TVIXB_CPU_AVX512] = {tvixb_schema_tvix_build_v1_avx512,
                          tvixb_schema_snix_build_v1_avx512},
#endif
};

const tvixb_kind* tvixb_kind_find(const char* name) {
  const tvixb_kind* const* tables = schemas[tvixb_cpu_best()];
  for (size_t i = 0; i < SCHEMA_COUNT; i++) {
    for (const tvixb_kind* kind = tables[i]; kind->name; kind++) {
      if (strcmp(kind->name, name) == 0) return kind;
    }
  }
  return NULL;
}

const char* tvixb_kind_name(const tvixb_kind* kind) { return kind->name; }
