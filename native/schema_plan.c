// SPDX-License-Identifier: MIT
//
// Checks plans, and returns their steps.
#include "context.h"

tvixb_status tvixb_check_plan(tvixb_context* context, const uint8_t* data,
                              size_t size, uint8_t* verdict, uint8_t* digest,
                              tvixb_steps* steps) {
  const tvixb_kind* kind = tvixb_kind_find("tvix_build.plan.v1.Plan");
  return tvixb_check_graph(context, kind, data, size, verdict, digest, steps);
}
