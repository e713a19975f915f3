// SPDX-License-Identifier: MIT
//
// Finds the messages of Arrow arrays. Reads offsets, views and the validity
// bitmap, but no messages. Arrow only recommends aligned buffers, so numbers
// are read with memcpy.
#include <stdbool.h>
#include <string.h>

#include "arrow.h"

// A view contains messages of up to this many bytes itself.
#define INLINE_MAX 12

typedef struct view {
  int32_t size;
  union {
    uint8_t bytes[INLINE_MAX];
    struct {
      uint8_t prefix[4];
      int32_t buffer;
      int32_t offset;
    } at;
  } value;
} view;

_Static_assert(sizeof(view) == 16, "ABI of binary_view");

static bool is_null(const struct ArrowArray* array, uint64_t i) {
  const uint8_t* valid = array->buffers[0];
  if (!valid || array->null_count == 0) return false;
  uint64_t bit = (uint64_t)array->offset + i;
  return !(valid[bit / 8] >> bit % 8 & 1);
}

// Returns the index of the first null message in [first, end); `end` if there
// is none.
static uint64_t first_null(const struct ArrowArray* array, uint64_t first,
                           uint64_t end) {
  if (!array->buffers[0] || array->null_count == 0) return end;
  while (first < end && !is_null(array, first)) first++;
  return first;
}

// Returns the offset of a message, or of the end of the last one. A negative
// offset becomes too large for any buffer.
static uint64_t offset_at(const struct ArrowArray* array, bool large,
                          uint64_t i) {
  const uint8_t* offsets = array->buffers[1];
  i += (uint64_t)array->offset;
  int64_t offset;
  int32_t small;
  if (large) {
    memcpy(&offset, offsets + i * sizeof offset, sizeof offset);
  } else {
    memcpy(&small, offsets + i * sizeof small, sizeof small);
    offset = small;
  }
  return (uint64_t)offset;
}

// For binary and large_binary. The last offset is the size of the data.
static tvixb_arrow_status by_offsets(const struct ArrowArray* array, bool large,
                                     uint64_t first, uint64_t count,
                                     uint64_t* begins, uint64_t* ends,
                                     tvixb_arrow_span* span) {
  uint64_t size = offset_at(array, large, (uint64_t)array->length);
  span->data = array->buffers[2];
  span->size = size <= INT64_MAX && span->data ? (size_t)size : 0;
  uint64_t begin = offset_at(array, large, first);
  for (uint64_t i = 0; i < count; i++) {
    uint64_t end = offset_at(array, large, first + i + 1);
    if (begin > end || end > span->size) {
      span->bad_message = first + i;
      return TVIXB_ARROW_BAD_RANGE;
    }
    begins[i] = begin;
    ends[i] = end;
    begin = end;
  }
  return TVIXB_ARROW_OK;
}

typedef struct addresses {
  uintptr_t first;
  uintptr_t end;
} addresses;

static void widen(addresses* range, const void* data, uint64_t size) {
  if (size == 0) return;
  uintptr_t first = (uintptr_t)data;
  if (first < range->first) range->first = first;
  if (first + size > range->end) range->end = first + (uintptr_t)size;
}

// The data buffers of a binary_view array: buffers[2 ..], except the last,
// which has their sizes.
typedef struct view_buffers {
  const void** data;
  const uint8_t* sizes;  // int64_t
  uint64_t count;
} view_buffers;

static int64_t buffer_size(const view_buffers* buffers, uint64_t i) {
  int64_t size;
  memcpy(&size, buffers->sizes + i * sizeof size, sizeof size);
  return size;
}

// Returns the first byte of the message whose view is at `place`; NULL if the
// message is not within its buffer.
static const uint8_t* resolve(const uint8_t* place, const view_buffers* buffers,
                              uint64_t* size) {
  view view;
  memcpy(&view, place, sizeof view);
  if (view.size < 0) return NULL;
  *size = (uint64_t)view.size;
  if (view.size <= INLINE_MAX) return place + offsetof(struct view, value);
  uint64_t buffer = (uint64_t)(int64_t)view.value.at.buffer;
  if (buffer >= buffers->count || view.value.at.offset < 0) return NULL;
  int64_t end = (int64_t)view.value.at.offset + view.size;
  if (!buffers->data[buffer] || end > buffer_size(buffers, buffer)) return NULL;
  return (const uint8_t*)buffers->data[buffer] + view.value.at.offset;
}

// For binary_view. The span reaches from the first to the last buffer,
// including the views themselves, so that every message is a range of it. An
// offset from one buffer into another needs a flat address space, which ISO C
// does not guarantee but every system with Arrow has.
static tvixb_arrow_status by_views(const struct ArrowArray* array,
                                   uint64_t first, uint64_t count,
                                   uint64_t* begins, uint64_t* ends,
                                   tvixb_arrow_span* span) {
  const view_buffers buffers = {
      .data = array->buffers + 2,
      .sizes = array->buffers[array->n_buffers - 1],
      .count = (uint64_t)array->n_buffers - 3,
  };
  if (buffers.count && !buffers.sizes) return TVIXB_ARROW_BAD_ARRAY;
  const uint8_t* views = (const uint8_t*)array->buffers[1] +
                         ((uint64_t)array->offset + first) * sizeof(view);
  addresses range = {UINTPTR_MAX, 0};
  widen(&range, views, count * sizeof(view));
  for (uint64_t i = 0; i < buffers.count; i++) {
    int64_t size = buffer_size(&buffers, i);
    if (size < 0) return TVIXB_ARROW_BAD_ARRAY;
    if (buffers.data[i]) widen(&range, buffers.data[i], (uint64_t)size);
  }
  span->data = (const uint8_t*)range.first;
  span->size = range.end - range.first;
  for (uint64_t i = 0; i < count; i++) {
    begins[i] = ends[i] = 0;
    if (is_null(array, first + i)) continue;  // its view is undefined
    uint64_t size;
    const uint8_t* message = resolve(views + i * sizeof(view), &buffers, &size);
    if (!message) {
      span->bad_message = first + i;
      return TVIXB_ARROW_BAD_RANGE;
    }
    begins[i] = (uintptr_t)message - range.first;
    ends[i] = begins[i] + size;
  }
  return TVIXB_ARROW_OK;
}

static bool has_layout(const struct ArrowArray* array, bool views) {
  return array->length >= 0 && array->offset >= 0 &&
         (views ? array->n_buffers >= 3 : array->n_buffers == 3) &&
         array->buffers && array->buffers[1];
}

static tvixb_arrow_status find_ranges(const struct ArrowArray* array,
                                      tvixb_arrow_layout layout, uint64_t first,
                                      uint64_t count, uint64_t* begins,
                                      uint64_t* ends, tvixb_arrow_span* span) {
  if (layout == TVIXB_ARROW_BINARY_VIEW) {
    return by_views(array, first, count, begins, ends, span);
  }
  return by_offsets(array, layout == TVIXB_ARROW_LARGE_BINARY, first, count,
                    begins, ends, span);
}

tvixb_arrow_status tvixb_arrow_ranges(const struct ArrowArray* array,
                                      tvixb_arrow_layout layout, uint64_t first,
                                      uint64_t count, uint64_t* begins,
                                      uint64_t* ends, tvixb_arrow_span* span) {
  *span = (tvixb_arrow_span){0};
  // An empty array may lack its buffers, even the first offset.
  if (count == 0) return TVIXB_ARROW_OK;
  if (!has_layout(array, layout == TVIXB_ARROW_BINARY_VIEW)) {
    return TVIXB_ARROW_BAD_ARRAY;
  }
  span->bad_message = first_null(array, first, first + count);
  if (span->bad_message < first + count) return TVIXB_ARROW_NULL;
  return find_ranges(array, layout, first, count, begins, ends, span);
}

tvixb_arrow_status tvixb_arrow_values(const struct ArrowArray* values,
                                      tvixb_arrow_layout layout,
                                      uint64_t* begins, uint64_t* ends,
                                      tvixb_arrow_span* span) {
  *span = (tvixb_arrow_span){0};
  if (values->length == 0) return TVIXB_ARROW_OK;
  if (!has_layout(values, layout == TVIXB_ARROW_BINARY_VIEW)) {
    return TVIXB_ARROW_BAD_ARRAY;
  }
  uint64_t count = (uint64_t)values->length;
  tvixb_arrow_status status =
      find_ranges(values, layout, 0, count, begins, ends, span);
  for (uint64_t i = 0; !status && i < count; i++) {
    if (is_null(values, i)) {
      begins[i] = 1;
      ends[i] = 0;
    }
  }
  return status;
}

// Returns the index of the value of message i. A negative index becomes too
// large for any dictionary.
static uint64_t index_at(const struct ArrowArray* array,
                         tvixb_arrow_index index, uint64_t i) {
  size_t size = (size_t)1 << index / 2;
  uint64_t at = (uint64_t)array->offset + i;
  const uint8_t* place = (const uint8_t*)array->buffers[1] + at * size;
  bool is_signed = index % 2 == 0;
  uint8_t u8;
  uint16_t u16;
  uint32_t u32;
  uint64_t u64;
  switch (size) {
    case 1:
      memcpy(&u8, place, sizeof u8);
      return is_signed ? (uint64_t)(int8_t)u8 : u8;
    case 2:
      memcpy(&u16, place, sizeof u16);
      return is_signed ? (uint64_t)(int16_t)u16 : u16;
    case 4:
      memcpy(&u32, place, sizeof u32);
      return is_signed ? (uint64_t)(int32_t)u32 : u32;
    default:
      memcpy(&u64, place, sizeof u64);
      return u64;
  }
}

tvixb_arrow_status tvixb_arrow_take(const struct ArrowArray* array,
                                    tvixb_arrow_index index, uint64_t first,
                                    uint64_t count,
                                    const uint64_t* value_begins,
                                    const uint64_t* value_ends,
                                    uint64_t value_count, uint64_t* begins,
                                    uint64_t* ends, uint64_t* bad_message) {
  *bad_message = 0;
  if (count == 0) return TVIXB_ARROW_OK;
  if (array->offset < 0 || array->n_buffers != 2 || !array->buffers ||
      !array->buffers[1]) {
    return TVIXB_ARROW_BAD_ARRAY;
  }
  for (uint64_t i = 0; i < count; i++) {
    *bad_message = first + i;
    if (is_null(array, first + i)) return TVIXB_ARROW_NULL;
    uint64_t value = index_at(array, index, first + i);
    if (value >= value_count) return TVIXB_ARROW_BAD_RANGE;
    begins[i] = value_begins[value];
    ends[i] = value_ends[value];
    if (begins[i] > ends[i]) return TVIXB_ARROW_NULL;
  }
  return TVIXB_ARROW_OK;
}
