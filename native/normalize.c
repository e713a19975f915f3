// SPDX-License-Identifier: MIT
//
// Decoding the concatenation of two encodings merges their messages. So this
// code builds no message objects: it concatenates the encodings of messages
// that merge, and works on their bytes.
#include "normalize.h"

#include <assert.h>
#include <string.h>

#include "decode.h"
#include "variant.h"
#include "wire.h"

typedef struct writer {
  tvixb_arena* arena;
  uint8_t* out;
} writer;

// An occurrence of a field in the original message.
typedef struct occurrence {
  uint32_t tag;
  tvixb_view whole;    // tag and value
  tvixb_view payload;  // of wire type LENGTH
  uint64_t value;      // of wire type VARINT
} occurrence;

// Reads the field at *p, which is known to decode, and sets *p to its end.
// Returns false if *p is the end.
static bool next_occurrence(const uint8_t** p, const uint8_t* end,
                            occurrence* field) {
  if (*p == end) return false;
  const uint8_t *begin = *p, *stop;
  const uint8_t* value = tvixb_wire_tag(begin, end, &field->tag);
  assert(value);
  *p = tvixb_wire_skip(value, end, field->tag, TVIXB_WIRE_DEPTH_MAX, &stop);
  assert(*p);
  field->whole = (tvixb_view){begin, (size_t)(*p - begin)};
  if ((field->tag & 7) == TVIXB_WIRE_LENGTH) {
    uint32_t length = 0;
    field->payload.data = tvixb_wire_length(value, end, &length);
    field->payload.size = length;
  } else if ((field->tag & 7) == TVIXB_WIRE_VARINT) {
    tvixb_wire_varint(value, end, &field->value);
  }
  return true;
}

// What a message contains.
typedef struct survey {
  uint16_t present;             // bits by field number
  unsigned member;              // the member of the oneof that is set, or 0
  const uint8_t* member_begin;  // first occurrence after those of other members
  tvixb_view unknown;           // the first unknown field
} survey;

static survey survey_content(const tvixb_message* message, tvixb_view content) {
  survey found = {0};
  const uint8_t *p = content.data, *end = content.data + content.size;
  occurrence field;
  while (next_occurrence(&p, end, &field)) {
    if (!tvixb_message_field(message, field.tag)) {
      if (!found.unknown.data) found.unknown = field.whole;
      continue;
    }
    unsigned number = field.tag >> 3;
    found.present |= (uint16_t)(1u << number);
    if (message->fields[number].oneof && number != found.member) {
      found.member = number;
      found.member_begin = field.whole.data;
    }
  }
  return found;
}

// Sets *merged to the concatenation of all occurrences of an embedded message.
static bool merge(writer* writer, tvixb_view content, uint32_t tag,
                  tvixb_view* merged) {
  const uint8_t *p = content.data, *end = content.data + content.size;
  occurrence field;
  size_t size = 0, count = 0;
  while (next_occurrence(&p, end, &field)) {
    if (field.tag != tag) continue;
    *merged = field.payload;
    size += field.payload.size;
    count++;
  }
  if (count == 1) return true;
  uint8_t* bytes = tvixb_arena_take(writer->arena, size);
  if (!bytes) return false;
  *merged = (tvixb_view){bytes, size};
  for (p = content.data; next_occurrence(&p, end, &field);) {
    if (field.tag != tag || field.payload.size == 0) continue;
    memcpy(bytes, field.payload.data, field.payload.size);
    bytes += field.payload.size;
  }
  return true;
}

static bool write_content(writer* writer, const tvixb_message* message,
                          tvixb_view content);

// Begins a field with a length. Returns the beginning of its content, with room
// for the length before it.
static uint8_t* begin_content(writer* writer, uint32_t tag) {
  *writer->out++ = (uint8_t)tag;
  writer->out += TVIXB_WIRE_SIZE_VARINT_MAX;
  return writer->out;
}

static void end_content(writer* writer, uint8_t* begin) {
  size_t size = (size_t)(writer->out - begin);
  uint8_t* place =
      tvixb_wire_put_varint(begin - TVIXB_WIRE_SIZE_VARINT_MAX, size);
  memmove(place, begin, size);
  writer->out = place + size;
}

// Drops a field that begin_content began.
static void drop_content(writer* writer, uint8_t* begin) {
  writer->out = begin - TVIXB_WIRE_SIZE_VARINT_MAX - 1;
}

static bool write_message(writer* writer, const tvixb_message* message,
                          uint32_t tag, tvixb_view content) {
  uint8_t* begin = begin_content(writer, tag);
  if (!write_content(writer, message, content)) return false;
  end_content(writer, begin);
  return true;
}

// Writes the last value of an `encoded` message. Copies a value that does not
// decode, which the scan then rejects.
static bool write_encoded(writer* writer, const tvixb_field* field,
                          tvixb_view content) {
  size_t stop;
  uint8_t* begin = begin_content(writer, field->tag);
  if (!tvixb_decode_check(field->message, content, &stop)) {
    memcpy(writer->out, content.data, content.size);
    writer->out += content.size;
  } else if (!write_content(writer, field->message, content)) {
    return false;
  }
  if (writer->out == begin) {
    drop_content(writer, begin);
  } else {
    end_content(writer, begin);
  }
  return true;
}

// Writes one packed list of all occurrences, packed or not.
static void write_packed(writer* writer, uint32_t tag, tvixb_view content) {
  uint8_t* begin = begin_content(writer, tag);
  const uint8_t *p = content.data, *end = content.data + content.size;
  occurrence found = {0};
  while (next_occurrence(&p, end, &found)) {
    if (found.tag == (tag >> 3 << 3 | TVIXB_WIRE_VARINT)) {
      writer->out = tvixb_wire_put_varint(writer->out, found.value);
    }
    if (found.tag != tag) continue;
    const uint8_t* number = found.payload.data;
    const uint8_t* stop = number + found.payload.size;
    uint64_t value;
    while (number && number < stop) {
      number = tvixb_wire_varint(number, stop, &value);
      if (number) writer->out = tvixb_wire_put_varint(writer->out, value);
    }
  }
  if (writer->out == begin) {
    drop_content(writer, begin);
  } else {
    end_content(writer, begin);
  }
}

static void write_scalar(writer* writer, const tvixb_field* field,
                         const occurrence* found) {
  uint32_t tag = field->tag;
  bool keep_default = field->repeated || field->oneof;
  if ((tag & 7) == TVIXB_WIRE_VARINT) {
    uint64_t value = found->value;
    if (field->type == TVIXB_TYPE_BOOL) value = value != 0;
    if (value == 0 && !keep_default) return;
    *writer->out++ = (uint8_t)tag;
    writer->out = tvixb_wire_put_varint(writer->out, value);
    return;
  }
  tvixb_view payload = found->payload;
  if (payload.size == 0 && !keep_default) return;
  *writer->out++ = (uint8_t)tag;
  writer->out = tvixb_wire_put_varint(writer->out, payload.size);
  if (payload.size) memcpy(writer->out, payload.data, payload.size);
  writer->out += payload.size;
}

// Writes a field: all elements of a list, the merged value of an embedded
// message, or the last value of any other field.
static bool write_field(writer* writer, const tvixb_field* field,
                        tvixb_view content) {
  uint32_t tag = field->tag;
  bool embedded = field->type == TVIXB_TYPE_MESSAGE;
  if (field->type == TVIXB_TYPE_PACKED) {
    write_packed(writer, tag, content);
    return true;
  }
  if (embedded && !field->repeated && !field->encoded) {
    tvixb_view merged;
    return merge(writer, content, tag, &merged) &&
           write_message(writer, field->message, tag, merged);
  }
  const uint8_t *p = content.data, *end = content.data + content.size;
  occurrence found, last = {0};
  while (next_occurrence(&p, end, &found)) {
    if (found.tag != tag) continue;
    last = found;
    if (!field->repeated) continue;
    if (!embedded) {
      write_scalar(writer, field, &found);
    } else if (!write_message(writer, field->message, tag, found.payload)) {
      return false;
    }
  }
  if (field->encoded) return write_encoded(writer, field, last.payload);
  if (!field->repeated) write_scalar(writer, field, &last);
  return true;
}

static bool write_content(writer* writer, const tvixb_message* message,
                          tvixb_view content) {
  message = tvixb_variant_message(message, tvixb_variant_of(message, content));
  survey found = survey_content(message, content);
  for (unsigned number = 1; number <= message->number_max; number++) {
    if (!(found.present >> number & 1)) continue;
    const tvixb_field* field = &message->fields[number];
    tvixb_view part = content;
    if (field->oneof) {
      if (number != found.member) continue;
      part.data = found.member_begin;
      part.size = (size_t)(content.data + content.size - part.data);
    }
    if (!write_field(writer, field, part)) {
      return false;
    }
  }
  if (found.unknown.size) {
    memcpy(writer->out, found.unknown.data, found.unknown.size);
    writer->out += found.unknown.size;
  }
  return true;
}

size_t tvixb_normal_size(const tvixb_kind* kind, size_t size) {
  if (!kind->packed_lists) return size;
  return size > SIZE_MAX / 2 ? SIZE_MAX : 2 * size;
}

bool tvixb_normalize(const tvixb_kind* kind, tvixb_view bytes,
                     tvixb_arena* arena, tvixb_view* normal) {
  // Room for the lengths that begin_content reserves.
  const size_t slack = TVIXB_DEPTH_MAX * TVIXB_WIRE_SIZE_VARINT_MAX;
  size_t size = tvixb_normal_size(kind, bytes.size);
  if (size > SIZE_MAX - slack) return false;
  uint8_t* out = tvixb_arena_take(arena, size + slack);
  if (!out) return false;
  writer writer = {arena, out};
  if (!write_content(&writer, kind->message, bytes)) return false;
  *normal = (tvixb_view){out, (size_t)(writer.out - out)};
  return true;
}
