// SPDX-License-Identifier: MIT
//
// Finds kinds by name, in the schemas for this CPU's level.
#include <string.h>

#include "cpu.h"
#include "schema.h"
#include "tvix_build.h"

// The schemas for each CPU level.
static const tvixb_kind* const schemas[] = {
    tvixb_schema_tvix_build_v1,
    tvixb_schema_snix_build_v1,
};
#ifdef TVIXB_HAVE_AVX512
static const tvixb_kind* const schemas_avx512[] = {
    tvixb_schema_tvix_build_v1_avx512,
    tvixb_schema_snix_build_v1_avx512,
};
#endif

const tvixb_kind* tvixb_kind_find(const char* name) {
  const tvixb_kind* const* tables = schemas;
#ifdef TVIXB_HAVE_AVX512
  if (tvixb_cpu_best() == TVIXB_CPU_AVX512) tables = schemas_avx512;
#endif
  for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
    for (const tvixb_kind* kind = tables[i]; kind->name; kind++) {
      if (strcmp(kind->name, name) == 0) return kind;
    }
  }
  return NULL;
}

const char* tvixb_kind_name(const tvixb_kind* kind) { return kind->name; }
