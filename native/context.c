// SPDX-License-Identifier: MIT
//
// Checks batches: processes windows of messages, each by the stages
//   scan (with decode and normalize if needed) -> order -> encode -> hash.
#include "context.h"

#include <stdlib.h>
#include <string.h>

#include "decode.h"
#include "encode.h"
#include "graph.h"
#include "hash.h"
#include "memory.h"
#include "normalize.h"
#include "order.h"
#include "ranges.h"
#include "report.h"
#include "scan.h"
#include "tvix_build.h"
#include "variant.h"

// A window ends after this many messages or bytes, so that what one stage
// leaves is still in the cache for the next.
#define WINDOW_COUNT 1024
#define WINDOW_SIZE ((size_t)256 * 1024)

// An encoding of at least this size is hashed piece by piece instead of being
// written to memory first.
#define STREAM_SIZE ((size_t)1024 * 1024)

struct tvixb_context {
  tvixb_scan scan;
  tvixb_order order;
  tvixb_graph graph;
  tvixb_report report;
  uint64_t caller_counts[TVIXB_COUNTS];  // TVIXB_ANY: unknown
  tvixb_arena arena;                     // for the window
  tvixb_view window[WINDOW_COUNT];       // encodings to hash
  tvixb_hash_stream stream;              // for an encoding that is not kept
};

tvixb_context* tvixb_context_new(void) {
  tvixb_context* context = calloc(1, sizeof *context);
  if (!context) return NULL;
  context->report.limit = TVIXB_VIOLATION_LIMIT;
  for (unsigned i = 0; i < TVIXB_COUNTS; i++) {
    tvixb_context_set_count(context, i, TVIXB_ANY);
  }
  return context;
}

void tvixb_context_free(tvixb_context* context) {
  if (!context) return;
  tvixb_scan_free(&context->scan);
  tvixb_order_free(&context->order);
  tvixb_graph_free(&context->graph);
  tvixb_report_free(&context->report);
  tvixb_arena_free(&context->arena);
  free(context);
}

void tvixb_context_set_violation_limit(tvixb_context* context, uint32_t limit) {
  context->report.limit = limit ? limit : 1;
}

void tvixb_context_set_count(tvixb_context* context, tvixb_count count,
                             uint64_t value) {
  context->caller_counts[count] = value;
}

static void report_malformed(tvixb_report* report, size_t stop) {
  const tvixb_path root = {0};
  tvixb_report_add(report, TVIXB_CODE_MALFORMED, &root, stop, (tvixb_view){0});
}

// Reports why a normalized message is not in the ordinary form, and returns its
// verdict.
static tvixb_verdict report_abnormal(tvixb_report* report,
                                     const tvixb_kind* kind, tvixb_view bytes,
                                     size_t size) {
  unsigned number;
  size_t stop;
  if (tvixb_decode_check_encoded(kind->message, bytes, &number, &stop)) {
    // Merged parts exceed protobuf's limit of 2 GiB, so the message has no
    // encoding.
    report_malformed(report, size);
    return TVIXB_MALFORMED;
  }
  tvixb_path path = {.depth = 1, .field = {(uint8_t)number}};
  path.index[0] = TVIXB_NO_INDEX;
  tvixb_report_add(report, TVIXB_CODE_MALFORMED, &path, stop, (tvixb_view){0});
  return TVIXB_INVALID;
}

// Scans a message, and the parts of a graph, that may be in the ordinary form.
// Returns false if it is not, or if an allocation fails.
static bool scan_ordinary(tvixb_context* context, const tvixb_kind* kind,
                          tvixb_view bytes, bool normalized) {
  return tvixb_scan_message(&context->scan, kind, bytes, context->caller_counts,
                            &context->report) &&
         (!kind->graph ||
          tvixb_graph_scan(&context->graph, &context->scan, kind->graph,
                           normalized, &context->arena, &context->report));
}

static bool scan_lacks_memory(const tvixb_context* context,
                              const tvixb_kind* kind) {
  return context->scan.out_of_memory ||
         (kind->graph && context->graph.out_of_memory);
}

// Scans a message. Normalizes it first if needed, and then sets *bytes to the
// ordinary form.
static tvixb_status scan(tvixb_context* context, const tvixb_kind* kind,
                         uint64_t message, tvixb_view* bytes,
                         tvixb_verdict* verdict) {
  tvixb_report_begin(&context->report, message);
  *verdict = TVIXB_CANONICAL;
  if (scan_ordinary(context, kind, *bytes, false)) return TVIXB_OK;
  if (scan_lacks_memory(context, kind)) return TVIXB_OUT_OF_MEMORY;
  tvixb_report_begin(&context->report, message);
  // Decode and normalize read bytes more than once and rely on their being the
  // same, so they get a copy that other threads cannot change.
  uint8_t* own = tvixb_arena_take(&context->arena, bytes->size);
  if (!own) return TVIXB_OUT_OF_MEMORY;
  memcpy(own, bytes->data, bytes->size);
  bytes->data = own;
  size_t size = bytes->size, stop;
  if (!tvixb_decode_check(kind->message, *bytes, &stop)) {
    report_malformed(&context->report, stop);
    *verdict = TVIXB_MALFORMED;
    return TVIXB_OK;
  }
  *verdict = TVIXB_VALID;
  if (!tvixb_normalize(kind, *bytes, &context->arena, bytes)) {
    return TVIXB_OUT_OF_MEMORY;
  }
  if (scan_ordinary(context, kind, *bytes, true)) return TVIXB_OK;
  if (scan_lacks_memory(context, kind)) return TVIXB_OUT_OF_MEMORY;
  tvixb_report_begin(&context->report, message);
  *verdict = report_abnormal(&context->report, kind, *bytes, size);
  return TVIXB_OK;
}

// Encodes an unsorted message into the arena and sets *bytes to the encoding.
// If the message is large and the encoding is not kept, writes its digest
// instead, and sets *bytes to {0}. Does nothing but that if there is no digest
// either.
static tvixb_status encode(tvixb_context* context, const tvixb_kind* kind,
                           tvixb_view* bytes, uint8_t* digest, bool keep) {
  if (!digest && !keep) {
    *bytes = (tvixb_view){0};
    return TVIXB_OK;
  }
  if (bytes->size >= STREAM_SIZE && !keep && !kind->graph) {
    tvixb_hash_stream_begin(&context->stream);
    tvixb_encode_stream(&context->scan, &context->order, kind,
                        &context->stream);
    tvixb_hash_stream_end(&context->stream, digest);
    *bytes = (tvixb_view){0};
    return TVIXB_OK;
  }
  if (bytes->size > SIZE_MAX - TVIXB_ENCODE_SLACK) return TVIXB_OUT_OF_MEMORY;
  uint8_t* encoded =
      tvixb_arena_take(&context->arena, bytes->size + TVIXB_ENCODE_SLACK);
  if (!encoded) return TVIXB_OUT_OF_MEMORY;
  bytes->size = tvixb_encode(&context->scan, &context->order, kind, encoded);
  bytes->data = encoded;
  if (kind->graph) tvixb_graph_encode(&context->graph, kind->graph, encoded);
  return TVIXB_OK;
}

// Processes a message by all stages before the hash stage. Sets *bytes to the
// canonical encoding to hash, in the data or in the arena; to {0} if there is
// nothing left to hash, in which case the digest was written.
static tvixb_status check_message(tvixb_context* context,
                                  const tvixb_kind* kind, uint64_t message,
                                  tvixb_view* bytes, tvixb_verdict* verdict,
                                  uint8_t* digest, bool keep) {
  tvixb_report* report = &context->report;
  report->variant = tvixb_variant_of(kind->message, *bytes);
  kind = tvixb_variant_kind(kind, report->variant);
  tvixb_status status = scan(context, kind, message, bytes, verdict);
  if (status != TVIXB_OK) return status;
  tvixb_arena* arena = digest || keep ? &context->arena : NULL;
  if (*verdict < TVIXB_INVALID) {
    if (!tvixb_order_lists(&context->order, &context->scan, kind,
                           context->caller_counts, arena, report) ||
        (kind->graph && !tvixb_graph_check(&context->graph, &context->scan,
                                           kind->graph, report))) {
      return TVIXB_OUT_OF_MEMORY;
    }
  }
  if (report->total > report->not_sorted) {
    if (*verdict != TVIXB_MALFORMED) *verdict = TVIXB_INVALID;
    *bytes = (tvixb_view){0};
    if (digest) memset(digest, 0, TVIXB_DIGEST_SIZE);
  } else if (report->total) {
    *verdict = TVIXB_UNSORTED;
    status = encode(context, kind, bytes, digest, keep);
    if (status != TVIXB_OK) return status;
  }
  tvixb_report_end(report);
  return report->out_of_memory ? TVIXB_OUT_OF_MEMORY : TVIXB_OK;
}

// Appends the encodings of the messages first .. first + count to `encodings`,
// after *used bytes.
static tvixb_status keep_encoded(const tvixb_context* context,
                                 const tvixb_encodings* encodings, size_t first,
                                 size_t count, size_t* used) {
  for (size_t i = 0; i < count; i++) {
    tvixb_view bytes = context->window[i];
    if (bytes.size > encodings->room - *used) return TVIXB_ROOM_TOO_SMALL;
    if (bytes.size) memcpy(encodings->data + *used, bytes.data, bytes.size);
    *used += bytes.size;
    encodings->ends[first + i] = encodings->first + *used;
  }
  return TVIXB_OK;
}

static tvixb_status check_batch(tvixb_context* context, const tvixb_kind* kind,
                                const uint8_t* data, size_t data_size,
                                const uint64_t* begins, const uint64_t* ends,
                                size_t n, const tvixb_results* results) {
  bool keep = results->encodings != NULL;
  uint8_t* digests = results->digests;
  size_t used = 0;
  for (size_t first = 0; first < n;) {
    tvixb_arena_reset(&context->arena);
    size_t count = 0, size = 0;
    while (first + count < n && count < WINDOW_COUNT && size < WINDOW_SIZE) {
      size_t i = first + count;
      tvixb_view* bytes = &context->window[count];
      *bytes = tvixb_ranges_view(data, data_size, begins[i], ends[i]);
      size += bytes->size;
      tvixb_verdict verdict;
      uint8_t* digest = digests ? digests + i * TVIXB_DIGEST_SIZE : NULL;
      tvixb_status status =
          check_message(context, kind, i, bytes, &verdict, digest, keep);
      if (status != TVIXB_OK) return status;
      results->verdicts[i] = (uint8_t)verdict;
      count++;
    }
    if (digests) {
      tvixb_hash_many(context->window, count,
                      digests + first * TVIXB_DIGEST_SIZE);
    }
    if (keep) {
      tvixb_status status =
          keep_encoded(context, results->encodings, first, count, &used);
      if (status != TVIXB_OK) return status;
    }
    first += count;
  }
  return TVIXB_OK;
}

// Forgets the results of the last call.
static void begin_call(tvixb_context* context) {
  tvixb_report_trim(&context->report);
  tvixb_report_clear(&context->report);
  tvixb_graph_forget(&context->graph);
}

// Frees what the next call does not need.
static void end_call(tvixb_context* context) {
  tvixb_arena_reset(&context->arena);
  tvixb_scan_trim(&context->scan);
  tvixb_order_trim(&context->order);
  tvixb_graph_trim(&context->graph);
}

tvixb_status tvixb_check(tvixb_context* context, const tvixb_kind* kind,
                         const uint8_t* data, size_t size,
                         const uint64_t* begins, const uint64_t* ends, size_t n,
                         const tvixb_results* results) {
  begin_call(context);
  if (!tvixb_ranges_fit(begins, ends, n, size)) return TVIXB_BAD_RANGE;
  if (results->encodings && !tvixb_ranges_aligned(results->encodings->ends)) {
    return TVIXB_BAD_RANGE;
  }
  tvixb_status status =
      check_batch(context, kind, data, size, begins, ends, n, results);
  end_call(context);
  return status;
}

tvixb_status tvixb_check_graph(tvixb_context* context, const tvixb_kind* kind,
                               const uint8_t* data, size_t size,
                               uint8_t* verdict, uint8_t* digest,
                               tvixb_steps* steps) {
  const uint64_t range[2] = {0, size};
  const tvixb_results results = {verdict, digest, NULL};
  *steps = (tvixb_steps){0};
  begin_call(context);
  tvixb_status status =
      check_batch(context, kind, data, size, range, range + 1, 1, &results);
  if (status == TVIXB_OK && *verdict == TVIXB_CANONICAL &&
      !tvixb_graph_describe(&context->graph, data, steps)) {
    status = TVIXB_OUT_OF_MEMORY;
  }
  end_call(context);
  return status;
}

size_t tvixb_encoded_room(const tvixb_kind* kind, size_t size,
                          const uint64_t* begins, const uint64_t* ends,
                          size_t n) {
  size_t room = 0;
  if (!tvixb_ranges_aligned(begins) || !tvixb_ranges_aligned(ends)) return 0;
  for (size_t i = 0; i < n; i++) {
    if (!tvixb_ranges_fit(begins + i, ends + i, 1, size)) continue;
    size_t more = tvixb_normal_size(kind, (size_t)(ends[i] - begins[i]));
    if (more > SIZE_MAX - room) return SIZE_MAX;
    room += more;
  }
  return room;
}

const tvixb_violation* tvixb_violations(const tvixb_context* context,
                                        size_t* count) {
  *count = context->report.violations.count;
  return context->report.violations.items;
}

const tvixb_violations_of* tvixb_violations_by_message(
    const tvixb_context* context, size_t* count) {
  *count = context->report.by_message.count;
  return context->report.by_message.items;
}
