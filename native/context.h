// SPDX-License-Identifier: MIT
//
// What the files of schemas need of a context.
#ifndef TVIXB_CONTEXT_H
#define TVIXB_CONTEXT_H

#include <stdint.h>

#include "schema.h"
#include "tvix_build.h"

// Sets a count with which later calls of tvixb_check compare messages.
// TVIXB_ANY: the count is unknown.
void tvixb_context_set_count(tvixb_context* context, tvixb_count count,
                             uint64_t value);

// Checks a message whose parts are a graph, and returns them (tvix_build.h).
tvixb_status tvixb_check_graph(tvixb_context* context, const tvixb_kind* kind,
                               const uint8_t* data, size_t size,
                               uint8_t* verdict, uint8_t* digest,
                               tvixb_steps* steps);

#endif  // TVIXB_CONTEXT_H
