// SPDX-License-Identifier: MIT
//
// Where tvixb_arrow_ranges says that messages lie, in arrays made by hand: what
// lies around their buffers tempts it.
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
  // Behind the size of the only buffer lies what is none.
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

int main(void) {
  offsets_that_decrease();
  views();
  puts("ranges of Arrow arrays are where they lie");
  return 0;
}
