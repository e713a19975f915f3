// SPDX-License-Identifier: MIT
//
// Batches that come from Arrow arrays, and reports as an Arrow array, by way of
// the C data and stream interfaces of Apache Arrow (the three structs below are
// their ABI). Stands on top of the core, which knows nothing of Arrow.
#ifndef TVIXB_ARROW_H
#define TVIXB_ARROW_H

#include <stddef.h>
#include <stdint.h>

#include "tvix_build.h"

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: begin */

struct ArrowSchema {
  const char* format;
  const char* name;
  const char* metadata;
  int64_t flags;
  int64_t n_children;
  struct ArrowSchema** children;
  struct ArrowSchema* dictionary;
  void (*release)(struct ArrowSchema*);
  void* private_data;
};

struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void** buffers;
  struct ArrowArray** children;
  struct ArrowArray* dictionary;
  void (*release)(struct ArrowArray*);
  void* private_data;
};

struct ArrowArrayStream {
  int (*get_schema)(struct ArrowArrayStream*, struct ArrowSchema* out);
  int (*get_next)(struct ArrowArrayStream*, struct ArrowArray* out);
  const char* (*get_last_error)(struct ArrowArrayStream*);
  void (*release)(struct ArrowArrayStream*);
  void* private_data;
};

// How the messages of an array lie in its buffers.
typedef enum tvixb_arrow_layout {
  TVIXB_ARROW_BINARY = 0,        // format "z"
  TVIXB_ARROW_LARGE_BINARY = 1,  // format "Z"
  TVIXB_ARROW_BINARY_VIEW = 2,   // format "vz"
} tvixb_arrow_layout;

typedef enum tvixb_arrow_status {
  TVIXB_ARROW_OK = 0,
  TVIXB_ARROW_OUT_OF_MEMORY = 1,
  // The array is not one of its layout: a buffer is missing, or the length or
  // offset is negative.
  TVIXB_ARROW_BAD_ARRAY = 2,
  // A message is null.
  TVIXB_ARROW_NULL = 3,
  // A message does not lie within its buffer.
  TVIXB_ARROW_BAD_RANGE = 4,
  // The violations of a report do not fit 32-bit offsets.
  TVIXB_ARROW_TOO_LARGE = 5,
} tvixb_arrow_status;

// Where messages of an array lie: what tvixb_check takes as `data` and `size`.
// The array's memory. Bytes that belong to no message may not even be mapped:
// a binary_view array has several buffers, and these are all that lies between
// the first and the last of them.
typedef struct tvixb_arrow_span {
  const uint8_t* data;
  size_t size;
  // With TVIXB_ARROW_NULL and TVIXB_ARROW_BAD_RANGE: which message, counted
  // from the beginning of the array.
  uint64_t bad_message;
} tvixb_arrow_span;

// Writes the ranges of `count` messages of an array, from message `first` on,
// to begins and ends. Copies no message. The array must have the layout, and at
// least first + count messages.
tvixb_arrow_status tvixb_arrow_ranges(const struct ArrowArray* array,
                                      tvixb_arrow_layout layout, uint64_t first,
                                      uint64_t count, uint64_t* begins,
                                      uint64_t* ends, tvixb_arrow_span* span);

// The type of a dictionary array's indices.
typedef enum tvixb_arrow_index {
  TVIXB_ARROW_INT8 = 0,    // format "c"
  TVIXB_ARROW_UINT8 = 1,   // format "C"
  TVIXB_ARROW_INT16 = 2,   // format "s"
  TVIXB_ARROW_UINT16 = 3,  // format "S"
  TVIXB_ARROW_INT32 = 4,   // format "i"
  TVIXB_ARROW_UINT32 = 5,  // format "I"
  TVIXB_ARROW_INT64 = 6,   // format "l"
  TVIXB_ARROW_UINT64 = 7,  // format "L"
} tvixb_arrow_index;

// As tvixb_arrow_ranges for all values of a dictionary, of which any may be
// null: a null value has a begin behind its end. The array is
// array->dictionary of a dictionary array, and begins and ends have room for
// its length, which must not be negative.
tvixb_arrow_status tvixb_arrow_values(const struct ArrowArray* values,
                                      tvixb_arrow_layout layout,
                                      uint64_t* begins, uint64_t* ends,
                                      tvixb_arrow_span* span);

// Writes the ranges of `count` messages of a dictionary array, from message
// `first` on, to begins and ends. `value_begins` and `value_ends` are what
// tvixb_arrow_values wrote for its `value_count` values. TVIXB_ARROW_NULL: an
// index or its value is null. TVIXB_ARROW_BAD_RANGE: an index has no value.
// With both, *bad_message is the message, counted from the beginning of the
// array. The array must have at least first + count messages.
tvixb_arrow_status tvixb_arrow_take(const struct ArrowArray* array,
                                    tvixb_arrow_index index, uint64_t first,
                                    uint64_t count,
                                    const uint64_t* value_begins,
                                    const uint64_t* value_ends,
                                    uint64_t value_count, uint64_t* begins,
                                    uint64_t* ends, uint64_t* bad_message);

// The schema of a report: a struct of valid (bool), canonical (bool), digest
// (fixed_size_binary(32), null where there is none) and violations (list of
// struct of the strings code, path and message).
tvixb_arrow_status tvixb_arrow_report_schema(struct ArrowSchema* out);

// The report on n messages of a kind as an array of that schema. `rows` and
// `violations` are as tvixb_violations_by_message and tvixb_violations lend
// them; everything is copied.
tvixb_arrow_status tvixb_arrow_report_array(
    const tvixb_kind* kind, const uint8_t* verdicts, const uint8_t* digests,
    size_t n, const tvixb_violations_of* rows, size_t row_count,
    const tvixb_violation* violations, size_t violation_count,
    struct ArrowArray* out);

// A stream of a report's array, which it takes over if it returns
// TVIXB_ARROW_OK.
tvixb_arrow_status tvixb_arrow_report_stream(struct ArrowArray* array,
                                             struct ArrowArrayStream* out);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif  // TVIXB_ARROW_H
