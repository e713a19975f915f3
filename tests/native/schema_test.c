// SPDX-License-Identifier: MIT
//
// Tests that the schema tables are consistent.
#include "schema.h"

#include <assert.h>
#include <stdio.h>

#include "schema_rules.h"
#include "tvix_build.h"

static unsigned lists_seen, unkeyed_lists, keyed_lists;
static unsigned keys_seen;  // in the current element
static bool packed_seen;

static void check_field(const tvixb_message* message, unsigned number,
                        unsigned depth);

static void check_message(const tvixb_message* message, unsigned depth) {
  assert(message->scan && depth <= TVIXB_DEPTH_MAX);
  assert(message->fields[0].type == TVIXB_TYPE_NONE);
  unsigned needed = 0, oneof = 0;
  for (unsigned i = 1; i <= TVIXB_FIELD_NUMBER_MAX; i++) {
    const tvixb_field* field = &message->fields[i];
    if (field->type == TVIXB_TYPE_NONE) {
      assert(!field->name && !field->rule && !field->list && !field->required);
      continue;
    }
    bool absence_is_bad =
        field->required ||
        (!field->repeated &&
         !tvixb_rule_holds(&tvixb_rules[field->rule], (tvixb_view){0}, 0));
    needed |= (unsigned)absence_is_bad << i;
    oneof |= (unsigned)field->oneof << i;
    check_field(message, i, depth);
  }
  assert(message->needed == needed);
  assert(message->oneof == oneof);
}

static void check_field(const tvixb_message* message, unsigned number,
                        unsigned depth) {
  const tvixb_field* field = &message->fields[number];
  assert(field->name);
  bool varint =
      field->type == TVIXB_TYPE_UINT64 || field->type == TVIXB_TYPE_BOOL;
  assert(field->tag ==
         (number << 3 | (varint ? TVIXB_WIRE_VARINT : TVIXB_WIRE_LENGTH)));
  assert((field->type == TVIXB_TYPE_MESSAGE) == (field->message != NULL));
  if (field->rule) {
    assert(tvixb_rules[field->rule].code);
    assert(tvixb_rules[field->rule].expected[0]);
  }
  if (field->list) {
    assert(field->repeated && field->list <= TVIXB_LIST_MAX);
    // Lists are numbered in the order of encoding.
    assert(lists_seen >> field->list == 0);
    lists_seen |= 1u << field->list;
    *(field->unkeyed ? &unkeyed_lists : &keyed_lists) |= 1u << field->list;
  }
  assert(!(field->repeated && field->oneof));
  assert(!field->unkeyed || field->list);
  assert(!field->count || field->repeated);
  if (field->type == TVIXB_TYPE_PACKED) {
    assert(!field->repeated && field->rule && field->limit && !field->list);
    packed_seen = true;
  }
  assert(field->limit < TVIXB_COUNTS && field->count < TVIXB_COUNTS);
  assert(!field->limit || field->type == TVIXB_TYPE_PACKED);
  keys_seen += field->key;
  if (!field->message) return;
  unsigned outer_keys = keys_seen;
  keys_seen = 0;
  check_message(field->message, depth + 1);
  // The elements of a list have one key. If they are a oneof, each member has a
  // key.
  bool has_list_key = field->list && !field->unkeyed;
  unsigned members = 0;
  for (unsigned i = 1; i <= TVIXB_FIELD_NUMBER_MAX; i++) {
    members += field->message->fields[i].oneof;
  }
  if (has_list_key) assert(keys_seen == (members ? members : 1));
  keys_seen = outer_keys + (field->oneof ? keys_seen : 0);
}

// Checks a kind, after its messages.
static void check_kind(const tvixb_kind* kind) {
  assert(packed_seen == kind->packed_lists);
  assert(lists_seen == (2u << kind->list_count) - 2);
  for (unsigned i = 0; i < kind->relation_count; i++) {
    const tvixb_relation* relation = &kind->relations[i];
    assert(keyed_lists >> relation->left & 1);
    assert(keyed_lists >> relation->right & 1);
    assert(relation->left != relation->right && relation->code);
    assert((relation->match == TVIXB_MATCH_BASE_NAME) ==
           (relation->unmatched_code != 0));
  }
  assert(unkeyed_lists ==
         (kind->parallel.list ? 1u << kind->parallel.list : 0));
  if (kind->parallel.list) {
    assert(keyed_lists >> kind->parallel.keyed_list & 1);
    assert(kind->parallel.code);
  }
  if (kind->length.field) {
    const tvixb_field* list = &kind->message->fields[kind->length.field];
    assert(list->repeated && list->count && list->count == kind->length.count);
    assert(kind->length.missing_code && kind->length.unexpected_code);
    assert(kind->length.expected);
  }
}

int main(void) {
  static const char* const names[] = {
      "tvix.build.v1.BuildRequest",      "tvix.build.v1.Build",
      "tvix.castore.v1.Directory",       "snix.build.v1.BuildRequest",
      "snix.build.v1.BuildResponse",     "snix.castore.v1.Directory",
      "tvix.build.v1@2024.BuildRequest", "tvix.build.v1@2024.Build",
  };
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    const tvixb_kind* kind = tvixb_kind_find(names[i]);
    assert(kind);
    lists_seen = unkeyed_lists = keyed_lists = keys_seen = 0;
    packed_seen = false;
    check_message(kind->message, 1);
    check_kind(kind);
  }
  assert(!tvixb_kind_find("tvix.build.v1"));
  for (unsigned code = 0; code <= TVIXB_CODE_NEEDLES_MISMATCH; code++) {
    assert(tvixb_code_name((uint8_t)code));
  }
  assert(!tvixb_code_name(TVIXB_CODE_NEEDLES_MISMATCH + 1));
  puts("ok");
  return 0;
}
