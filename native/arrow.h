// SPDX-License-Identifier: MIT
//
// Reads batches from Arrow arrays and writes reports as Arrow arrays, with the
// C data and stream interfaces of Apache Arrow; the three structs below are
// their ABI. The core does not depend on this file.
//
// The rules of tvix_build.h for NULL, alignment, aliasing, retention, ownership
// and threads apply here too. Buffers of Arrow arrays need no alignment.
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

// The layout of the messages in an array's buffers.
typedef enum tvixb_arrow_layout {
  TVIXB_ARROW_BINARY = 0,        // format "z"
  TVIXB_ARROW_LARGE_BINARY = 1,  // format "Z"
  TVIXB_ARROW_BINARY_VIEW = 2,   // format "vz"
} tvixb_arrow_layout;

typedef enum tvixb_arrow_status {
  TVIXB_ARROW_OK = 0,
  TVIXB_ARROW_OUT_OF_MEMORY = 1,
  // The array does not have the layout: a buffer is missing, or the length or
  // offset is negative.
  TVIXB_ARROW_BAD_ARRAY = 2,
  // A message is null.
  TVIXB_ARROW_NULL = 3,
  // A message is not within its buffer, or an index is not within its
  // dictionary.
  TVIXB_ARROW_BAD_RANGE = 4,
  // The violations of a report need offsets above 2^31 - 1.
  TVIXB_ARROW_TOO_LARGE = 5,
} tvixb_arrow_status;

// The memory that contains the messages of an array: `data` and `size` for
// tvixb_check. It belongs to the array and is valid until the array is
// released. Do not read bytes outside the messages: the span of a binary_view
// array reaches from its first buffer to its last, and memory between buffers
// may not be mapped.
typedef struct tvixb_arrow_span {
  // May be NULL if size is 0.
  const uint8_t* data;
  size_t size;
  // With TVIXB_ARROW_NULL and TVIXB_ARROW_BAD_RANGE: index of the message in
  // the array. Undefined with other statuses.
  uint64_t bad_message;
} tvixb_arrow_span;

// Writes the ranges of the messages first .. first + count of an array to
// begins[0 .. count) and ends[0 .. count), as offsets in span->data. Copies no
// message. The array's format must be that of the layout, and the array must
// have at least first + count messages. `begins` and `ends` may be NULL if
// count is 0.
//
// Returns:
// - TVIXB_ARROW_OK: all ranges were written
// - TVIXB_ARROW_BAD_ARRAY: the array does not have the layout
// - TVIXB_ARROW_NULL: message span->bad_message is null
// - TVIXB_ARROW_BAD_RANGE: message span->bad_message is not within its buffer
//
// Unless the status is TVIXB_ARROW_OK, the ranges are undefined.
tvixb_arrow_status tvixb_arrow_ranges(const struct ArrowArray* array,
                                      tvixb_arrow_layout layout, uint64_t first,
                                      uint64_t count, uint64_t* begins,
                                      uint64_t* ends, tvixb_arrow_span* span);

// The type of the indices of a dictionary array.
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

// Writes the ranges of all values of a dictionary to begins[0 .. length) and
// ends[0 .. length); a null value gets a begin greater than its end. `values`
// is array->dictionary of a dictionary array; its length must not be negative.
// Otherwise as tvixb_arrow_ranges, but does not return TVIXB_ARROW_NULL.
tvixb_arrow_status tvixb_arrow_values(const struct ArrowArray* values,
                                      tvixb_arrow_layout layout,
                                      uint64_t* begins, uint64_t* ends,
                                      tvixb_arrow_span* span);

// Writes the ranges of the messages first .. first + count of a dictionary
// array to begins[0 .. count) and ends[0 .. count). `value_begins` and
// `value_ends` are the ranges that tvixb_arrow_values wrote for the
// dictionary's `value_count` values; they may be NULL if value_count is 0. The
// array must have at least first + count messages. `begins` and `ends` may be
// NULL if count is 0.
//
// Returns:
// - TVIXB_ARROW_OK: all ranges were written
// - TVIXB_ARROW_BAD_ARRAY: the array is not a dictionary array
// - TVIXB_ARROW_NULL: message *bad_message is null, or its value is
// - TVIXB_ARROW_BAD_RANGE: the index of message *bad_message is not less than
//   value_count
//
// Unless the status is TVIXB_ARROW_OK, the ranges are undefined.
tvixb_arrow_status tvixb_arrow_take(const struct ArrowArray* array,
                                    tvixb_arrow_index index, uint64_t first,
                                    uint64_t count,
                                    const uint64_t* value_begins,
                                    const uint64_t* value_ends,
                                    uint64_t value_count, uint64_t* begins,
                                    uint64_t* ends, uint64_t* bad_message);

// Writes the schema of a report to *out: a struct of valid (bool), canonical
// (bool), digest (fixed_size_binary(32), null for a message without a digest)
// and violations (a list of structs of the strings code, path and message). The
// caller must release *out. Returns TVIXB_ARROW_OK, or
// TVIXB_ARROW_OUT_OF_MEMORY with nothing to release.
tvixb_arrow_status tvixb_arrow_report_schema(struct ArrowSchema* out);

// Writes a report on n messages of a kind to *out, as an array with the schema
// of tvixb_arrow_report_schema. The other parameters are the results of
// tvixb_check, tvixb_violations_by_message and tvixb_violations, which are
// copied; each may be NULL if its count is 0. The caller must release *out, on
// any thread.
//
// Returns:
// - TVIXB_ARROW_OK: the array was written
// - TVIXB_ARROW_OUT_OF_MEMORY: an allocation failed; there is nothing to
//   release
// - TVIXB_ARROW_TOO_LARGE: there are more than 2^31 - 1 violations, or their
//   texts in one column are longer than that; there is nothing to release
tvixb_arrow_status tvixb_arrow_report_array(
    const tvixb_kind* kind, const uint8_t* verdicts, const uint8_t* digests,
    size_t n, const tvixb_violations_of* rows, size_t row_count,
    const tvixb_violation* violations, size_t violation_count,
    struct ArrowArray* out);

// Writes a stream that yields the array of a report to *out. Returns
// TVIXB_ARROW_OK: the stream then owns the array, *array is marked as released,
// and the caller must release *out. Returns TVIXB_ARROW_OUT_OF_MEMORY if the
// allocation fails; *array is unchanged then.
tvixb_arrow_status tvixb_arrow_report_stream(struct ArrowArray* array,
                                             struct ArrowArrayStream* out);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif  // TVIXB_ARROW_H
