// SPDX-License-Identifier: MIT
//
// Tests tvixb_arrow_ranges with handmade arrays, whose buffers have misleading
// values around them.
#include "arrow.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define DATA_SIZE 50

static const uint8_t data[DATA_SIZE];

static void offsets_that_decrease(void) {
  const int32_t offsets[] = {0, 7, 5, DATA_SIZE};
  const void* buffers[] = {NULL, offsets, data};
  const struct ArrowArray array = {
      .length = 3, .n_buffers = 3, .buffers = buffers};
  uint64_t begins[3], ends[3];
  tvixb_arrow_span span;
  assert(tvixb_arrow_ranges(&array, TVIXB_ARROW_BINARY, 0, 3, begins, ends,
                            &span) == TVIXB_ARROW_BAD_RANGE);
  assert(span.bad_message == 1);
  assert(!tvixb_arrow_ranges(&array, TVIXB_ARROW_BINARY, 2, 1, begins, ends,
                             &span));
  assert(span.data == data && begins[0] == 5 && ends[0] == DATA_SIZE);
}

typedef struct place {
  int32_t size, prefix, buffer, offset;
} place;

static tvixb_arrow_status one_view(const place* view, uint64_t* begin,
                                   uint64_t* end, tvixb_arrow_span* span) {
  // The value after the size of the only buffer is not a size.
  const int64_t sizes[] = {DATA_SIZE, INT64_MAX};
  const void* buffers[] = {NULL, view, data, sizes};
  const struct ArrowArray array = {
      .length = 1, .n_buffers = 4, .buffers = buffers};
  return tvixb_arrow_ranges(&array, TVIXB_ARROW_BINARY_VIEW, 0, 1, begin, end,
                            span);
}

static void views(void) {
  uint64_t begin, end;
  tvixb_arrow_span span;
  for (int32_t size = 0; size <= 64; size++) {
    for (int32_t buffer = -1; buffer <= 2; buffer++) {
      for (int32_t offset = -1; offset <= DATA_SIZE; offset++) {
        const place view = {size, 0, buffer, offset};
        bool held = size <= 12;
        bool good =
            held || (buffer == 0 && offset >= 0 && offset + size <= DATA_SIZE);
        tvixb_arrow_status status = one_view(&view, &begin, &end, &span);
        assert(status == (good ? TVIXB_ARROW_OK : TVIXB_ARROW_BAD_RANGE));
        if (!good) continue;
        const uint8_t* expected =
            held ? (const uint8_t*)&view.prefix : data + offset;
        assert((uintptr_t)span.data + begin == (uintptr_t)expected);
        assert(end - begin == (uint64_t)size);
      }
    }
  }
}

static void null_values(void) {
  const int32_t offsets[] = {0, 7, 9, DATA_SIZE};
  const uint8_t valid = 0x2;  // with offset 1, the second message is null
  const void* buffers[] = {&valid, offsets, data};
  const struct ArrowArray values = {.length = 2,
                                    .null_count = 1,
                                    .offset = 1,
                                    .n_buffers = 3,
                                    .buffers = buffers};
  uint64_t begins[2], ends[2];
  tvixb_arrow_span span;
  assert(!tvixb_arrow_values(&values, TVIXB_ARROW_BINARY, begins, ends, &span));
  assert(span.data == data && begins[0] == 7 && ends[0] == 9);
  assert(begins[1] > ends[1]);
  buffers[1] = NULL;
  assert(tvixb_arrow_values(&values, TVIXB_ARROW_BINARY, begins, ends, &span) ==
         TVIXB_ARROW_BAD_ARRAY);
}

// Tests every value of one byte as an index of every type, with an array
// offset.
static void indices(void) {
  uint64_t value_begins[200], value_ends[200], begin, end, bad;
  for (uint64_t i = 0; i < 200; i++) {
    value_begins[i] = i;
    value_ends[i] = 2 * i;
  }
  for (unsigned type = TVIXB_ARROW_INT8; type <= TVIXB_ARROW_UINT64; type++) {
    size_t size = (size_t)1 << type / 2;
    for (int number = type % 2 ? 0 : -128; number < 256; number++) {
      if (size == 1 && number > (type % 2 ? 255 : 127)) break;
      uint8_t memory[1 + 3 * sizeof(int64_t)] = {0};  // misaligned
      int64_t wide = number;  // little-endian, like all tested CPUs
      memcpy(memory + 1 + 2 * size, &wide, size);
      const void* buffers[] = {NULL, memory + 1};
      const struct ArrowArray array = {
          .length = 2, .offset = 1, .n_buffers = 2, .buffers = buffers};
      tvixb_arrow_status status =
          tvixb_arrow_take(&array, type, 1, 1, value_begins, value_ends, 200,
                           &begin, &end, &bad);
      bool good = number >= 0 && number < 200;
      assert(status == (good ? TVIXB_ARROW_OK : TVIXB_ARROW_BAD_RANGE));
      assert(bad == 1);
      if (good) assert(begin == (uint64_t)number && end == 2 * begin);
    }
  }
}

int main(void) {
  offsets_that_decrease();
  views();
  null_values();
  indices();
  puts("ok");
  return 0;
}
