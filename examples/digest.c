// SPDX-License-Identifier: MIT
//
// Prints the digest of the build request on standard input: digest < FILE The
// exit status is 0 if the request is valid, 1 if it is not, and 2 on errors.
#include <stdio.h>

#include "tvix_build.h"

int main(void) {
  static uint8_t data[1 << 20];
  const uint64_t begin = 0, end = fread(data, 1, sizeof data, stdin);
  uint8_t verdict, digest[TVIXB_DIGEST_SIZE];
  const tvixb_results results = {&verdict, digest, NULL};

  tvixb_context* context = tvixb_context_new();
  const tvixb_kind* kind = tvixb_kind_find("tvix.build.v1.BuildRequest");
  if (!context || tvixb_check(context, kind, data, sizeof data, &begin, &end, 1,
                              &results) != TVIXB_OK)
    return 2;
  for (int i = 0; i < TVIXB_DIGEST_SIZE; i++) printf("%02x", digest[i]);
  printf("\n");
  tvixb_context_free(context);
  return verdict > TVIXB_VALID;
}
