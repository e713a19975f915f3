// SPDX-License-Identifier: MIT
//
// Lists the kinds of all schemas and finds them by name, in the tables for this
// CPU's level.
#include <string.h>

#include "cpu.h"
#include "schema.h"
#include "tvix_build.h"

// The schemas for each CPU level.
static const tvixb_kind* const* const schemas_of_level[] = {
    [TVIXB_CPU_PLAIN] = tvixb_schemas_plain,
#ifdef TVIXB_HAVE_AVX2
    [TVIXB_CPU_AVX2] = tvixb_schemas_avx2,
#endif
#ifdef TVIXB_HAVE_AVX512
    [TVIXB_CPU_AVX512] = tvixb_schemas_avx512,
#endif
#ifdef TVIXB_HAVE_NEON
    [TVIXB_CPU_NEON] = tvixb_schemas_plain,  // its search has no level
#endif
};

const tvixb_kind* tvixb_kind_at(size_t index) {
  const tvixb_kind* const* schemas = schemas_of_level[tvixb_cpu_best()];
  for (; *schemas; schemas++) {
    for (const tvixb_kind* kind = *schemas; kind->name; kind++) {
      if (index-- == 0) return kind;
    }
  }
  return NULL;
}

const tvixb_kind* tvixb_kind_find(const char* name) {
  const tvixb_kind* kind;
  for (size_t i = 0; (kind = tvixb_kind_at(i)); i++) {
    if (strcmp(kind->name, name) == 0) return kind;
  }
  return NULL;
}

const char* tvixb_kind_name(const tvixb_kind* kind) { return kind->name; }
