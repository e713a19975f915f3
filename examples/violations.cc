// SPDX-License-Identifier: MIT
//
// Prints the violations of the build request on standard input: violations <
// FILE The exit status is 0 if the request is valid, 1 if it is not, and 2 on
// errors.
#include <iostream>
#include <iterator>
#include <memory>
#include <string>

#include "tvix_build.h"

int main() {
  const std::string data(std::istreambuf_iterator<char>(std::cin), {});
  const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
  const uint64_t begin = 0, end = data.size();
  uint8_t verdict, digest[TVIXB_DIGEST_SIZE];
  const tvixb_results results{&verdict, digest, nullptr};

  const std::unique_ptr<tvixb_context, decltype(&tvixb_context_free)> context(
      tvixb_context_new(), tvixb_context_free);
  const tvixb_kind* kind = tvixb_kind_find("tvix.build.v1.BuildRequest");
  if (!context || tvixb_check(context.get(), kind, bytes, end, &begin, &end, 1,
                              &results) != TVIXB_OK)
    return 2;
  size_t count;
  const tvixb_violation* violations = tvixb_violations(context.get(), &count);
  for (const auto* at = violations; at < violations + count; at++) {
    char path[256], message[256];
    tvixb_violation_path(kind, at, path, sizeof path);
    tvixb_violation_message(kind, at, message, sizeof message);
    std::cout << path << ": " << message << '\n';
  }
  return verdict > TVIXB_VALID;
}
