// SPDX-License-Identifier: MIT
//
// An empty build request lacks what is required, says the engine.
#include <cstdio>
#include <memory>

#include "tvix_build.h"

int main() {
  const std::unique_ptr<tvixb_context, decltype(&tvixb_context_free)> context(
      tvixb_context_new(), tvixb_context_free);
  const tvixb_kind* kind = tvixb_kind_find("tvix.build.v1.BuildRequest");
  const uint8_t data[1] = {0};
  const uint64_t begin = 0, end = 0;
  uint8_t verdict = TVIXB_CANONICAL, digest[TVIXB_DIGEST_SIZE];
  const tvixb_results results = {&verdict, digest, nullptr};
  if (tvixb_check(context.get(), kind, data, 0, &begin, &end, 1, &results) !=
      TVIXB_OK) {
    return 1;
  }
  size_t count = 0;
  const tvixb_violation* violations = tvixb_violations(context.get(), &count);
  for (size_t i = 0; i < count; i++) {
    char path[64];
    tvixb_violation_path(kind, &violations[i], path, sizeof path);
    std::printf("%s: %s\n", path, tvixb_code_name(violations[i].code));
  }
  return verdict == TVIXB_INVALID && count > 0 ? 0 : 1;
}
