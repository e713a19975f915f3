// SPDX-License-Identifier: MIT
//
// tvix_build's own C core, without Python: the whole corpus in one call. Keeps
// at most VIOLATIONS violations of a message.
#include <stdio.h>
#include <stdlib.h>

#include "peer.h"
#include "tvix_build.h"

static tvixb_context* context;
static const tvixb_kind* kind;

static void repeat(const corpus* messages, findings* found) {
  uint8_t* verdicts = malloc(messages->count ? messages->count : 1);
  tvixb_results results = {verdicts, found->digests, NULL};
  tvixb_status status =
      tvixb_check(context, kind, messages->data, messages->size,
                  messages->begins, messages->ends, messages->count, &results);
  if (status != TVIXB_OK) {
    fprintf(stderr, "tvixb_check: status %d\n", (int)status);
    exit(2);
  }
  found->valid = 0;
  for (size_t i = 0; i < messages->count; ++i) {
    found->valid += verdicts[i] <= TVIXB_VALID;
  }
  free(verdicts);
}

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    fprintf(stderr, "usage: %s CORPUS [VIOLATIONS [KIND]]\n", argv[0]);
    return 2;
  }
  context = tvixb_context_new();
  kind = tvixb_kind_find(argc == 4 ? argv[3] : "tvix.build.v1.BuildRequest");
  if (!context || !kind) return 2;
  if (argc > 2) {
    tvixb_context_set_violation_limit(context, (uint32_t)atoi(argv[2]));
  }
  return peer_serve(argv[1], repeat);
}
