// SPDX-License-Identifier: MIT
//
// Selects the variant of a message: its tables depend on the value of one of
// its strings (tvixb_variant).
#ifndef TVIXB_VARIANT_H
#define TVIXB_VARIANT_H

#include "schema.h"
#include "view.h"

// Returns 1 + the index of the variant of a message with this content; 0 if the
// message has no variants, no variant has the value of the content, or the
// content does not decode.
uint8_t tvixb_variant_of(const tvixb_message* message, tvixb_view content);

// Returns the tables of a variant: `message` itself for 0.
static inline const tvixb_message* tvixb_variant_message(
    const tvixb_message* message, uint8_t variant) {
  return variant ? message->variants[variant - 1].kind->message : message;
}

// Returns the kind of a variant of a kind's root message: `kind` itself for 0.
static inline const struct tvixb_kind* tvixb_variant_kind(
    const struct tvixb_kind* kind, uint8_t variant) {
  return variant ? kind->message->variants[variant - 1].kind : kind;
}

#endif  // TVIXB_VARIANT_H
