// SPDX-License-Identifier: MIT
//
// Checks the tables of a kind.
#ifndef SCHEMA_CHECK_H
#define SCHEMA_CHECK_H

#include <assert.h>

#include "rules.h"
#include "schema.h"
#include "tvix_build.h"

typedef struct schema_state {
  unsigned lists, unkeyed;  // bits by 1 + index
  unsigned list_count;
  unsigned keys;     // in the current element
  unsigned counted;  // bits by tvixb_count
  unsigned limits;   // bits of the counts that no list set before
  bool packed;
  unsigned parts;  // number of the field of the root with parts of a graph
} schema_state;

static inline void schema_check_rule(const tvixb_field* field) {
  const tvixb_rule* rule = field->rule;
  assert(rule && rule->expected && rule->min <= rule->max);
  if (tvixb_field_is_number(field)) {
    assert(!rule->extra_check && !rule->forbidden && !rule->forbidden_prefix);
  } else if (!rule->min) {
    assert(tvixb_rule_holds(rule, (tvixb_view){0}, 0));
  }
  bool always_holds = !rule->min && rule->max == UINT64_MAX &&
                      !rule->forbidden && !rule->extra_check &&
                      field->type != TVIXB_TYPE_PACKED;
  // Codes that other rules have are not those of values.
  assert(always_holds ? !rule->code
                      : rule->code > TVIXB_CODE_REQUIRED &&
                            rule->code < TVIXB_CODE_COUNT && rule->expected[0]);
}

static inline void schema_check_message(const tvixb_message* message,
                                        unsigned depth, unsigned indices,
                                        schema_state* state);

static inline void schema_check_embedded(const tvixb_field* field,
                                         unsigned depth, unsigned indices,
                                         schema_state* state) {
  unsigned outer_keys = state->keys;
  state->keys = 0;
  schema_check_message(field->message, depth + 1, indices, state);
  // The elements of a list have one key. If they are a oneof, each member has a
  // key. Other messages have none.
  unsigned members = 0;
  for (unsigned i = 1; i <= field->message->number_max; i++) {
    members += field->message->fields[i].oneof;
  }
  if (field->sorted && !field->unkeyed) {
    assert(state->keys == (members ? members : 1));
  } else {
    assert(field->oneof ? state->keys <= 1 : !state->keys);
  }
  state->keys = outer_keys + (field->oneof ? state->keys : 0);
}

static inline void schema_check_field(const tvixb_field* field, unsigned depth,
                                      unsigned indices, schema_state* state) {
  bool packed = field->type == TVIXB_TYPE_PACKED;
  indices += field->repeated || packed;
  assert(indices <= 2);  // tvixb_violation
  assert(!field->base_name || field->key);
  assert(!field->encoded || (field->type == TVIXB_TYPE_MESSAGE && depth == 1 &&
                             !field->repeated && !field->oneof));
  schema_check_rule(field);
  assert((field->type == TVIXB_TYPE_MESSAGE) == (field->message != NULL));
  if (field->sorted) {
    state->list_count++;
    state->lists |= 1u << state->list_count;
    state->unkeyed |= (unsigned)field->unkeyed << state->list_count;
  }
  assert(field->limit < TVIXB_COUNTS && field->count < TVIXB_COUNTS);
  assert(packed == (field->limit != TVIXB_COUNT_NONE));
  if (field->count) {
    assert(!(state->counted >> field->count & 1) && indices == 1);
  }
  state->counted |= (unsigned)(field->count != 0) << field->count;
  if (packed && !(state->counted >> field->limit & 1)) {
    state->limits |= 1u << field->limit;
  }
  state->packed |= packed;
  assert(!field->required || !tvixb_field_is_number(field));
  assert(!(field->required && field->oneof));
  assert(!field->adds_to_total || (field->tag & 7) == TVIXB_WIRE_VARINT);
  assert(!field->path_prefix ||
         (!field->repeated && (field->type == TVIXB_TYPE_STRING ||
                               field->type == TVIXB_TYPE_BYTES)));
  state->keys += field->key;
  bool is_parts = depth == 1 && (unsigned)field->tag >> 3 == state->parts;
  if (field->message && !is_parts) {
    schema_check_embedded(field, depth, indices, state);
  }
}

static inline void schema_check_message(const tvixb_message* message,
                                        unsigned depth, unsigned indices,
                                        schema_state* state) {
  assert(depth <= TVIXB_DEPTH_MAX);
  for (unsigned i = 0; i <= message->number_max; i++) {
    const tvixb_field* field = &message->fields[i];
    assert((field->tag != 0) == (field->name != NULL));
    if (field->tag) schema_check_field(field, depth, indices, state);
  }
}

// Returns whether the variant of a message has the same fields, apart from
// those of encoded messages, which are bytes in the message itself.
static inline bool schema_is_variant(const tvixb_message* message,
                                     const tvixb_message* variant) {
  if (message->number_max != variant->number_max) return false;
  for (unsigned i = 1; i <= message->number_max; i++) {
    const tvixb_field *a = &message->fields[i], *b = &variant->fields[i];
    if (a->tag != b->tag || a->repeated != b->repeated) return false;
    if (a->type != (b->encoded ? TVIXB_TYPE_BYTES : b->type)) return false;
    if (a->message && !schema_is_variant(a->message, b->message)) return false;
  }
  return true;
}

static inline void schema_check(const tvixb_kind* kind);

static inline void schema_check_variants(const tvixb_message* message) {
  const tvixb_variant* variant = message->variants;
  assert((variant != NULL) == (message->selector != 0));
  if (!variant) return;
  assert(message->fields[message->selector].type == TVIXB_TYPE_STRING);
  for (; variant->value; variant++) {
    assert(!variant->kind->message->variants);
    assert(schema_is_variant(message, variant->kind->message));
    schema_check(variant->kind);
  }
}

static inline void schema_check_part(const tvixb_kind* kind) {
  const tvixb_part* part = &kind->part;
  const tvixb_field* field = &kind->message->fields[part->ref_field];
  assert(part->refs && part->refs <= kind->list_count && field->sorted);
  assert(part->targets && part->targets <= kind->list_count);
  const tvixb_field* digest = &field->message->fields[part->ref_digest];
  const tvixb_field* target = &field->message->fields[part->ref_target];
  assert(digest->rule->min == TVIXB_DIGEST_SIZE && target->key);
}

static inline void schema_check_graph(const tvixb_kind* kind) {
  const tvixb_graph_rule* graph = kind->graph;
  const tvixb_message* part = graph->part->message;
  const tvixb_field* parts = &kind->message->fields[graph->parts];
  assert(graph->parts == 1 && parts->repeated && !parts->sorted);
  assert(parts->message == part && part->variants);
  for (unsigned i = 0; part->variants[i].value; i++) {
    schema_check_part(part->variants[i].kind);
  }
  assert(graph->roots && graph->roots <= kind->list_count);
  assert(graph->variant_code && graph->unknown_code &&
         graph->unknown_target_code && graph->unreached_code);
  schema_check(graph->part);
}

// Checks the tables of a kind.
static inline void schema_check(const tvixb_kind* kind) {
  schema_check_variants(kind->message);
  if (kind->graph) schema_check_graph(kind);
  schema_state state = {.parts = kind->graph ? kind->graph->parts : 0};
  schema_check_message(kind->message, 1, 0, &state);
  unsigned keyed = state.lists & ~state.unkeyed;
  assert(kind->scan && !state.keys);
  assert(state.packed == kind->packed_lists);
  assert(state.list_count == kind->list_count);
  // A list that sets a count is before the lists that the count limits.
  assert(state.limits == kind->caller_counts);
  for (unsigned i = 0; i < kind->relation_count; i++) {
    const tvixb_relation* relation = &kind->relations[i];
    assert(keyed >> relation->left & 1 && keyed >> relation->right & 1);
    assert(relation->left != relation->right && relation->code);
    assert(!relation->also ||
           (keyed >> relation->also & 1 && relation->also != relation->left &&
            relation->match != TVIXB_MATCH_BASE_NAME));
    assert((relation->match == TVIXB_MATCH_BASE_NAME) ==
           (relation->unmatched_code != 0));
  }
  const tvixb_parallel_list* parallel = &kind->parallel;
  assert(state.unkeyed == (parallel->list ? 1u << parallel->list : 0));
  if (parallel->list) assert(keyed >> parallel->keyed_list & 1);
  assert((parallel->list != 0) == (parallel->code != 0));
  if (kind->length.field) {
    assert(kind->length.field <= kind->message->number_max);
    assert(kind->message->fields[kind->length.field].count);
    assert(kind->length.missing_code && kind->length.unexpected_code);
    assert(kind->length.expected);
  }
}

#endif  // SCHEMA_CHECK_H
