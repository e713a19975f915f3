// SPDX-License-Identifier: MIT
//
// What schemas set in a context.
#ifndef TVIXB_CONTEXT_H
#define TVIXB_CONTEXT_H

#include <stdint.h>

#include "schema.h"
#include "tvix_build.h"

// Sets a count that the caller gives for the messages of later calls.
// TVIXB_ANY: the count is unknown.
void tvixb_context_set_count(tvixb_context* context, tvixb_count count,
                             uint64_t value);

#endif  // TVIXB_CONTEXT_H
