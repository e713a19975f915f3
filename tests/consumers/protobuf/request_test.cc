// SPDX-License-Identifier: MIT
//
// The engine finds an error in a request that C++'s protobuf encoded.
#include <memory>
#include <string>

#include "tvix/build/protos/build.pb.h"
#include "tvix_build.h"

int main() {
  tvix::build::v1::BuildRequest request;
  request.add_outputs("nix/store");
  const std::string data = request.SerializeAsString();
  const std::unique_ptr<tvixb_context, decltype(&tvixb_context_free)> context(
      tvixb_context_new(), tvixb_context_free);
  const tvixb_kind* kind = tvixb_kind_find("tvix.build.v1.BuildRequest");
  const uint64_t begin = 0, end = data.size();
  uint8_t verdict = TVIXB_CANONICAL, digest[TVIXB_DIGEST_SIZE];
  const tvixb_results results = {&verdict, digest, nullptr};
  const int status = tvixb_check(
      context.get(), kind, reinterpret_cast<const uint8_t*>(data.data()),
      data.size(), &begin, &end, 1, &results);
  return status == TVIXB_OK && verdict == TVIXB_INVALID ? 0 : 1;
}
