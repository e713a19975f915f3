// SPDX-License-Identifier: MIT
//
// The tables say the same thing in all places where they say it twice.
#include "schema.h"

#include <assert.h>
#include <stdio.h>

#include "schema_rules.h"
#include "tvix_build.h"

static unsigned lists_seen;
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
    // Each once, in the order of encoding.
    assert(lists_seen >> field->list == 0);
    lists_seen |= 1u << field->list;
  }
  assert(!(field->repeated && field->oneof));
  assert(!field->unkeyed || field->list);
  assert(!field->count || field->repeated);
  if (field->type == TVIXB_TYPE_PACKED) {
    assert(!field->repeated && field->rule && field->limit && !field->list);
    packed_seen = true;
  }
  if (field->message) check_message(field->message, depth + 1);
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
    lists_seen = 0;
    packed_seen = false;
    check_message(kind->message, 1);
    assert(packed_seen == kind->packed_lists);
    assert(lists_seen == (2u << kind->list_count) - 2);
    for (unsigned j = 0; j < kind->relation_count; j++) {
      assert(kind->relations[j].left <= kind->list_count);
      assert(kind->relations[j].right <= kind->list_count);
    }
  }
  assert(!tvixb_kind_find("tvix.build.v1"));
  for (unsigned code = 0; code <= TVIXB_CODE_NEEDLES_MISMATCH; code++) {
    assert(tvixb_code_name((uint8_t)code));
  }
  assert(!tvixb_code_name(TVIXB_CODE_NEEDLES_MISMATCH + 1));
  puts("ok");
  return 0;
}
