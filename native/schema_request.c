// SPDX-License-Identifier: MIT
//
// Sets the counts of a request, with which a response is compared.
#include "context.h"

void tvixb_context_set_request(tvixb_context* context, uint64_t output_count,
                               uint64_t needle_count) {
  tvixb_context_set_count(context, TVIXB_COUNT_OUTPUTS, output_count);
  tvixb_context_set_count(context, TVIXB_COUNT_NEEDLES, needle_count);
}
