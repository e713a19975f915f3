// SPDX-License-Identifier: MIT
//
// Sets the values of a context on which a schema's rules depend.
#ifndef TVIXB_CONTEXT_H
#define TVIXB_CONTEXT_H

#include <stdint.h>

#include "schema.h"
#include "tvix_build.h"

// Sets a count with which later calls of tvixb_check compare messages.
// TVIXB_ANY: the count is unknown.
void tvixb_context_set_count(tvixb_context* context, tvixb_count count,
                             uint64_t value);

#endif  // TVIXB_CONTEXT_H
