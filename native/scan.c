// SPDX-License-Identifier: MIT
#include "scan.h"

#include <assert.h>

#include "wire.h"

static_assert(TVIXB_COUNTS <= 8, "caller_counts has 8 bits");

const uint8_t* tvixb_scan_long_varint(const uint8_t* p, const uint8_t* end,
                                      uint64_t* value) {
  const uint8_t* after = tvixb_wire_varint(p, end, value);
  if (!after) return NULL;
  size_t size = (size_t)(after - p);
  if (size == TVIXB_WIRE_VARINT_MAX && after[-1] > 1) return NULL;
  return tvixb_wire_varint_size(*value) == size ? after : NULL;
}

void tvixb_scan_report(tvixb_scan* scan, uint8_t code, unsigned depth,
                       tvixb_view value) {
  scan->path.depth = depth;
  tvixb_report_add(scan->report, code, &scan->path, value.size, value);
}

void tvixb_scan_report_number(tvixb_scan* scan, uint8_t code, unsigned depth,
                              uint64_t number) {
  scan->path.depth = depth;
  tvixb_report_add(scan->report, code, &scan->path, number, (tvixb_view){0});
}

void tvixb_scan_add_smaller(tvixb_scan* scan, tvixb_list* list, uint64_t index,
                            unsigned depth, tvixb_view key) {
  int order =
      tvixb_view_compare(key, tvixb_scan_key(scan, scan->elements.count - 1));
  list->has_equals |= order == 0;
  if (order < 0) {
    list->unsorted = true;
    scan->path.index[depth] = index;
    tvixb_scan_report(scan, TVIXB_CODE_NOT_SORTED, depth + 1, key);
  }
}

const uint8_t* tvixb_scan_unknown(tvixb_scan* scan,
                                  const tvixb_message* message,
                                  const uint8_t* p, const uint8_t* end,
                                  unsigned depth) {
  const uint8_t* stop;
  uint32_t tag, first = 0;
  while (p < end) {
    p = tvixb_wire_tag(p, end, &tag);
    if (!p || tvixb_message_field(message, tag)) return NULL;
    p = tvixb_wire_skip(p, end, tag, scan->depth_max - depth, &stop);
    if (!p) return NULL;
    if (!first) first = tag;
  }
  scan->path.depth = depth;
  tvixb_report_add(scan->report, TVIXB_CODE_UNKNOWN_FIELD, &scan->path, first,
                   (tvixb_view){0});
  return p;
}

void tvixb_scan_absent(tvixb_scan* scan, const tvixb_message* message,
                       unsigned depth, unsigned seen) {
  const tvixb_view nothing = {0};
  bool lacks_member = tvixb_message_has_oneof(message);
  for (unsigned i = 1; i <= message->number_max; i++) {
    if (message->fields[i].oneof && (seen >> i & 1)) lacks_member = false;
  }
  if (lacks_member) {
    tvixb_scan_report(scan, TVIXB_CODE_REQUIRED, depth, nothing);
  }
  for (unsigned i = 1; i <= message->number_max; i++) {
    const tvixb_field* field = &message->fields[i];
    if (!field->tag || (seen >> i & 1) || !tvixb_field_is_needed(field)) {
      continue;
    }
    scan->path.field[depth] = (uint8_t)i;
    scan->path.index[depth] = TVIXB_NO_INDEX;
    tvixb_scan_report(scan,
                      field->required ? TVIXB_CODE_REQUIRED : field->rule->code,
                      depth + 1, nothing);
  }
}

const uint8_t* tvixb_scan_part(tvixb_scan* scan, const uint8_t* p,
                               const uint8_t* end, unsigned depth,
                               tvixb_list* lists, tvixb_view* key) {
  (void)depth;
  (void)lists;
  (void)key;
  if (!tvixb_vector_reserve(&scan->parts, 1, sizeof(tvixb_view))) {
    scan->out_of_memory = true;
    return NULL;
  }
  tvixb_view* parts = scan->parts.items;
  parts[scan->parts.count++] = (tvixb_view){p, (size_t)(end - p)};
  return end;
}

bool tvixb_scan_message(tvixb_scan* scan, const tvixb_kind* kind,
                        tvixb_view bytes, const uint64_t* caller_counts,
                        tvixb_report* report) {
  scan->data = bytes.data;
  scan->end = bytes.data + bytes.size;
  scan->report = report;
  for (unsigned i = 0; i < kind->list_count; i++) {
    scan->lists[i] = (tvixb_list){0};
  }
  scan->elements.count = 0;
  scan->packed.count = 0;
  scan->parts.count = 0;
  scan->path_prefix = (tvixb_view){0};
  scan->depth_max = TVIXB_WIRE_DEPTH_MAX - scan->outer_depth;
  memset(scan->counts, 0, sizeof scan->counts);
  for (unsigned i = 0; i < TVIXB_COUNTS; i++) {
    if (kind->caller_counts >> i & 1) scan->counts[i] = caller_counts[i];
  }
  scan->total = 0;
  scan->total_overflow = false;
  scan->out_of_memory = false;
  if (!kind->scan(scan, bytes.data, scan->end)) {
    return false;
  }
  tvixb_scan_add_to_total(scan, scan->elements.count);
  if (kind->overflow_code && scan->total_overflow) {
    tvixb_scan_report(scan, kind->overflow_code, 0, (tvixb_view){0});
  }
  return true;
}

void tvixb_scan_trim(tvixb_scan* scan) {
  tvixb_vector_trim(&scan->elements);
  tvixb_vector_trim(&scan->packed);
  tvixb_vector_trim(&scan->parts);
}

void tvixb_scan_free(tvixb_scan* scan) {
  tvixb_vector_free(&scan->elements);
  tvixb_vector_free(&scan->packed);
  tvixb_vector_free(&scan->parts);
}
