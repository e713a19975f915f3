// SPDX-License-Identifier: MIT
//
// A mutator for the protobuf wire format, independent of schemas. It changes
// fields of a message or of an embedded message, and updates the lengths around
// them. Half of the time it lets the fuzzer change bytes. Not thread-safe.
#ifndef TVIXB_FUZZ_MUTATE_H
#define TVIXB_FUZZ_MUTATE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "wire.h"

// The fuzzer's own mutator. Changes bytes in place and returns the new size.
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

#define MUTATE_FIELDS 256
#define MUTATE_DEPTH 4
#define MUTATE_SIZE ((size_t)1 << 16)  // maximum size of an embedded message
#define MUTATE_HEAD ((size_t)16)       // maximum size of a tag and a length

typedef struct mutate_field {
  size_t begin, value, end;  // of the tag, of the value after its length, end
  unsigned wire_type;
} mutate_field;

static uint64_t mutate_seed;

static inline size_t mutate_random(size_t below) {
  mutate_seed ^= mutate_seed << 13;
  mutate_seed ^= mutate_seed >> 7;
  mutate_seed ^= mutate_seed << 17;
  return (size_t)((mutate_seed >> 11) % below);
}

static inline bool mutate_varint(const uint8_t* data, size_t size, size_t* at,
                                 uint64_t* value) {
  *value = 0;
  for (unsigned shift = 0; shift < 70 && *at < size; shift += 7) {
    uint8_t byte = data[(*at)++];
    if (shift < 64) *value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// Finds the fields at the beginning of a message, up to the first that is
// invalid.
static inline size_t mutate_split(const uint8_t* data, size_t size,
                                  mutate_field* fields) {
  size_t count = 0, at = 0;
  while (count < MUTATE_FIELDS && at < size) {
    mutate_field field = {.begin = at};
    uint64_t tag, length = 0;
    if (!mutate_varint(data, size, &at, &tag)) break;
    field.wire_type = tag & 7;
    if (field.wire_type == TVIXB_WIRE_LENGTH) {
      if (!mutate_varint(data, size, &at, &length)) break;
    } else if (field.wire_type == TVIXB_WIRE_VARINT) {
      size_t end = at;
      if (!mutate_varint(data, size, &end, &tag)) break;
      length = end - at;
    } else if (field.wire_type == TVIXB_WIRE_FIXED64) {
      length = 8;
    } else if (field.wire_type == TVIXB_WIRE_FIXED32) {
      length = 4;
    }
    if (length > size - at) break;
    field.value = at;
    field.end = at += (size_t)length;
    fields[count++] = field;
  }
  return count;
}

// Replaces data[begin .. end) of `total` bytes by `size` bytes, which must not
// be in `data`. Returns the new total; the old one, without a change, if the
// new one is too large.
static inline size_t mutate_replace(uint8_t* data, size_t total, size_t max,
                                    size_t begin, size_t end,
                                    const uint8_t* bytes, size_t size) {
  size_t rest = total - end;
  if (size > max || begin + rest > max - size) return total;
  memmove(data + begin + size, data + end, rest);
  memcpy(data + begin, bytes, size);
  return begin + size + rest;
}

static inline size_t mutate_message(uint8_t* data, size_t size, size_t max,
                                    unsigned depth);

// Changes the content of a field with a length.
static inline size_t mutate_value(uint8_t* data, size_t size, size_t max,
                                  const mutate_field* field, unsigned depth) {
  static uint8_t memory[MUTATE_DEPTH][MUTATE_HEAD + MUTATE_SIZE];
  size_t length = field->end - field->value;
  if (depth >= MUTATE_DEPTH || length > MUTATE_SIZE / 2) return size;
  uint8_t* inner = memory[depth] + MUTATE_HEAD;
  memcpy(inner, data + field->value, length);
  length = mutate_message(inner, length, MUTATE_SIZE, depth + 1);
  uint8_t head[2 * TVIXB_WIRE_VARINT_MAX];
  size_t at = field->begin;
  uint64_t tag = 0;
  mutate_varint(data, size, &at, &tag);
  uint8_t* p = tvixb_wire_put_varint(head, tag);
  p = tvixb_wire_put_varint(p, length);
  size_t head_size = (size_t)(p - head);
  if (head_size > MUTATE_HEAD) return size;
  memcpy(inner - head_size, head, head_size);
  return mutate_replace(data, size, max, field->begin, field->end,
                        inner - head_size, head_size + length);
}

static inline size_t mutate_message(uint8_t* data, size_t size, size_t max,
                                    unsigned depth) {
  static mutate_field memory[MUTATE_DEPTH + 1][MUTATE_FIELDS];
  static uint8_t copy[MUTATE_SIZE];
  mutate_field* fields = memory[depth];
  size_t count = mutate_split(data, size, fields);
  size_t what = mutate_random(10);
  if (!count || what == 0) return LLVMFuzzerMutate(data, size, max);
  const mutate_field* field = &fields[mutate_random(count)];
  const mutate_field* other = &fields[mutate_random(count)];
  size_t length = field->end - field->begin;
  if (length > sizeof copy) return LLVMFuzzerMutate(data, size, max);
  memcpy(copy, data + field->begin, length);
  switch (what) {
    case 1:  // remove the field
      return mutate_replace(data, size, max, field->begin, field->end, copy, 0);
    case 2:  // duplicate the field
      return mutate_replace(data, size, max, other->begin, other->begin, copy,
                            length);
    case 3: {  // move the field
      size_t to = other->begin;
      if (to >= field->end) to -= length;
      if (to > field->begin && to < field->end) return size;
      size = mutate_replace(data, size, max, field->begin, field->end, copy, 0);
      return mutate_replace(data, size, max, to, to, copy, length);
    }
    case 4:  // change the field number or wire type
      data[field->begin] =
          (uint8_t)(mutate_random(8) << 3 | mutate_random(7) % 6);
      return size;
    case 5: {  // lengthen the tag
      uint8_t tag[2] = {data[field->begin] | 0x80, 0};
      return mutate_replace(data, size, max, field->begin, field->begin + 1,
                            tag, 2);
    }
    default:
      if (field->wire_type != TVIXB_WIRE_LENGTH) {
        if (field->value == field->end) return size;  // a group has no value
        data[field->value] = (uint8_t)mutate_random(128);
        return size;
      }
      return mutate_value(data, size, max, field, depth);
  }
}

// Implements LLVMFuzzerCustomMutator.
static inline size_t mutate(uint8_t* data, size_t size, size_t max,
                            unsigned seed) {
  mutate_seed = (uint64_t)seed << 1 | 1;
  for (int i = 0; i < 8; i++) mutate_random(2);
  if (mutate_random(2)) return LLVMFuzzerMutate(data, size, max);
  return mutate_message(data, size, max, 0);
}

#endif  // TVIXB_FUZZ_MUTATE_H
