// SPDX-License-Identifier: MIT
//
// Tests that the tables of every kind are consistent, in ways that the macros
// of schema_rows.h do not check.
#include "schema.h"

#include <assert.h>
#include <stdio.h>

#include "schema_check.h"
#include "tvix_build.h"

int main(void) {
  const tvixb_kind* kind;
  size_t count = 0;
  for (; (kind = tvixb_kind_at(count)); count++) {
    schema_check(kind);
    assert(tvixb_kind_find(tvixb_kind_name(kind)) == kind);
  }
  assert(count && !tvixb_kind_at(count + 1) && !tvixb_kind_at(SIZE_MAX));
  assert(!tvixb_kind_find("tvix.build.v1"));
  for (unsigned code = 0; code < TVIXB_CODE_COUNT; code++) {
    assert(tvixb_code_name((uint8_t)code));
  }
  assert(!tvixb_code_name(TVIXB_CODE_COUNT));
  puts("ok");
  return 0;
}
