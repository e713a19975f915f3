// SPDX-License-Identifier: MIT
#include "scan.h"

#include "rules.h"
#include "utf8.h"
#include "wire.h"

// What stays the same during one call.
typedef struct scanner {
  tvixb_scan* scan;
  tvixb_report* report;
} scanner;

// Reads a varint in its shortest form; NULL if it has another or is cut.
static inline const uint8_t* read_shortest(const uint8_t* p, const uint8_t* end,
                                           uint64_t* value) {
  if (p < end && *p < 0x80) {
    *value = *p;
    return p + 1;
  }
  const uint8_t* after = tvixb_wire_varint(p, end, value);
  if (!after) return NULL;
  size_t size = (size_t)(after - p);
  if (size == TVIXB_WIRE_VARINT_MAX && after[-1] > 1) return NULL;
  return tvixb_wire_varint_size(*value) == size ? after : NULL;
}

static void add_to_size(tvixb_scan* scan, uint64_t value) {
  scan->size_overflow |= value > UINT64_MAX - scan->size;
  scan->size += value;
}

static void check_value(scanner* s, const tvixb_field* field, unsigned depth,
                        tvixb_view value) {
  if (tvixb_rule_holds(field->rule, value)) return;
  s->scan->path.depth = depth + 1;
  tvixb_report_add(s->report, tvixb_rule_texts[field->rule].code,
                   &s->scan->path, value.size, value);
}

// Notes an element of a sorted list; its key is scan->key.
static bool add_element(scanner* s, tvixb_list* list, unsigned depth,
                        const uint8_t* begin, const uint8_t* end) {
  tvixb_scan* scan = s->scan;
  if (!tvixb_vector_reserve(&scan->elements, 1, sizeof(tvixb_element))) {
    scan->out_of_memory = true;
    return false;
  }
  uint64_t prefix = tvixb_view_prefix(scan->key);
  scan->path.depth = depth + 1;
  if (list->count == 0) {
    list->first = scan->elements.count;
    list->path = scan->path;
  } else if (prefix <= scan->last_prefix) {
    int order = prefix < scan->last_prefix
                    ? -1
                    : tvixb_view_compare(scan->key, scan->last_key);
    list->has_equals |= order == 0;
    if (order < 0 && !list->unsorted) {
      list->unsorted = true;
      tvixb_report_add(s->report, TVIXB_CODE_NOT_SORTED, &scan->path,
                       scan->key.size, scan->key);
    }
  }
  scan->last_prefix = prefix;
  scan->last_key = scan->key;
  tvixb_element* elements = scan->elements.items;
  elements[scan->elements.count++] = (tvixb_element){
      .begin = (uint64_t)(begin - scan->data),
      .key = scan->key.size ? (uint32_t)(scan->key.data - begin) : 0,
      .key_size = (uint32_t)scan->key.size,
  };
  list->count++;
  list->end = (uint64_t)(end - scan->data);
  return true;
}

// Skips an unknown field; NULL if it does not decode or is a known field whose
// tag is longer than needed.
static const uint8_t* skip_unknown(scanner* s, const tvixb_message* message,
                                   const uint8_t* p, const uint8_t* end,
                                   unsigned depth, bool first) {
  uint32_t tag;
  const uint8_t *stop, *value = tvixb_wire_tag(p, end, &tag);
  if (!value || tvixb_message_field(message, tag)) return NULL;
  p = tvixb_wire_skip(value, end, tag, TVIXB_WIRE_DEPTH_MAX - depth, &stop);
  if (p && first) {
    s->scan->path.depth = depth;
    tvixb_report_add(s->report, TVIXB_CODE_UNKNOWN_FIELD, &s->scan->path, tag,
                     (tvixb_view){0});
  }
  return p;
}

// Reports what a message lacks. `seen` has bits by field number.
static void check_absent(scanner* s, const tvixb_message* message,
                         unsigned depth, unsigned seen) {
  tvixb_path* path = &s->scan->path;
  const tvixb_view nothing = {0};
  if (message->oneof && !(message->oneof & seen)) {
    path->depth = depth;
    tvixb_report_add(s->report, TVIXB_CODE_REQUIRED, path, 0, nothing);
  }
  for (unsigned number = 1; number <= TVIXB_FIELD_NUMBER_MAX; number++) {
    if (!(message->needed & ~seen & (1u << number))) continue;
    const tvixb_field* field = &message->fields[number];
    path->field[depth] = (uint8_t)number;
    path->index[depth] = TVIXB_NO_INDEX;
    if (field->required) {
      path->depth = depth + 1;
      tvixb_report_add(s->report, TVIXB_CODE_REQUIRED, path, 0, nothing);
    } else {
      check_value(s, field, depth, nothing);
    }
  }
}

static const uint8_t* scan_varint(scanner* s, const tvixb_field* field,
                                  const uint8_t* p, const uint8_t* end) {
  uint64_t value;
  p = read_shortest(p, end, &value);
  if (!p || value == 0) return NULL;
  if (field->type == TVIXB_TYPE_BOOL && value != 1) return NULL;
  if (field->size) add_to_size(s->scan, value);
  return p;
}

static bool scan_content(scanner* s, const tvixb_message* message,
                         const uint8_t* p, const uint8_t* end, unsigned depth);

static const uint8_t* scan_length(scanner* s, const tvixb_field* field,
                                  const uint8_t* p, const uint8_t* end,
                                  unsigned depth) {
  uint64_t size;
  p = read_shortest(p, end, &size);
  if (!p || size > INT32_MAX || size > (size_t)(end - p)) return NULL;
  if (field->type == TVIXB_TYPE_MESSAGE) {
    bool ordinary = scan_content(s, field->message, p, p + size, depth + 1);
    return ordinary ? p + size : NULL;
  }
  if (size == 0 && !field->repeated && !field->oneof) return NULL;
  if (field->type == TVIXB_TYPE_STRING && tvixb_utf8_valid(p, size) != size) {
    return NULL;
  }
  tvixb_view value = {p, size};
  check_value(s, field, depth, value);
  if (field->key || (field->list && field->repeated)) s->scan->key = value;
  return p + size;
}

static bool scan_content(scanner* s, const tvixb_message* message,
                         const uint8_t* p, const uint8_t* end, unsigned depth) {
  tvixb_scan* scan = s->scan;
  unsigned seen = 0, last = 0;
  uint64_t index = 0;
  bool unknown = false;
  while (p < end) {
    const uint8_t* begin = p;
    const tvixb_field* field =
        *p < 0x80 ? tvixb_message_field(message, *p) : NULL;
    if (!field) {
      p = skip_unknown(s, message, p, end, depth, !unknown);
      if (!p) return false;
      unknown = true;
      continue;
    }
    unsigned number = *p++ >> 3;
    if (number < last || (number == last && !field->repeated)) return false;
    if (field->oneof && (seen & message->oneof)) return false;
    index = number == last ? index + 1 : 0;
    seen |= 1u << number;
    last = number;
    scan->path.field[depth] = (uint8_t)number;
    scan->path.index[depth] = field->repeated ? index : TVIXB_NO_INDEX;
    if (field->list) scan->key = (tvixb_view){0};
    p = tvixb_type_wire(field->type) == TVIXB_WIRE_VARINT
            ? scan_varint(s, field, p, end)
            : scan_length(s, field, p, end, depth);
    if (!p) return false;
    if (field->list &&
        !add_element(s, &scan->lists[field->list - 1], depth, begin, p)) {
      return false;
    }
  }
  if ((message->needed & ~seen) || (message->oneof && !(message->oneof & seen)))
    check_absent(s, message, depth, seen);
  return true;
}

bool tvixb_scan_message(tvixb_scan* scan, const tvixb_kind* kind,
                        tvixb_view bytes, tvixb_report* report) {
  scan->data = bytes.data;
  for (unsigned i = 0; i < kind->list_count; i++) {
    scan->lists[i] = (tvixb_list){0};
  }
  scan->elements.count = 0;
  scan->size = 0;
  scan->size_overflow = false;
  scan->out_of_memory = false;
  scanner s = {scan, report};
  if (!scan_content(&s, kind->message, bytes.data, bytes.data + bytes.size,
                    0)) {
    return false;
  }
  add_to_size(scan, scan->elements.count);
  if (kind->directory && scan->size_overflow) {
    scan->path.depth = 0;
    tvixb_report_add(report, TVIXB_CODE_SIZE_OVERFLOW, &scan->path, 0,
                     (tvixb_view){0});
  }
  return true;
}

void tvixb_scan_free(tvixb_scan* scan) { tvixb_vector_free(&scan->elements); }
