// SPDX-License-Identifier: MIT
//
// tvix_build validates, canonicalizes and hashes serialized messages of the
// tvix build protocol. This header is the complete public interface of the C
// library.
//
// Functions take batches of serialized protobuf messages; a single message is a
// batch of one. docs/canonical-form.md defines "valid", "canonical" and
// "digest".
//
//     tvixb_context *context = tvixb_context_new();
//     const tvixb_kind *kind = tvixb_kind_find("tvix.build.v1.BuildRequest");
//     uint64_t offsets[2] = {0, size};
//     uint8_t verdict, digest[32];
//     tvixb_results results = {&verdict, digest, NULL};
//     if (tvixb_check(context, kind, data, size, offsets, offsets + 1, 1,
//                     &results) != TVIXB_OK) ...
//     tvixb_context_free(context);
//
// These rules apply to every function, unless its comment or the comment of a
// struct member says otherwise:
//
// - NULL: no pointer may be NULL.
// - Alignment: a pointer is aligned as its type. tvixb_check, tvixb_blake3_many
//   and tvixb_encoded_room also detect misaligned arrays of offsets.
// - Aliasing: memory that a function writes must not overlap any other memory
//   that is passed to the same call. Memory that a function only reads may
//   overlap.
// - Retention: the library keeps no pointer to the caller's memory after a call
//   returns.
// - Ownership: the caller owns all memory that it passes. Memory that a
//   function returns belongs to the library, and the function's comment states
//   how long it is valid.
// - Thread safety: the library has no global mutable state, and any number of
//   threads may call its functions at the same time. A context serves one call
//   at a time, so concurrent threads need a context each. Kinds are constants,
//   which threads may share.
//
// Other threads may change messages during a call. The call then still returns
// TVIXB_OK, with unchanged results for all other messages. A changed message
// may get any verdict, digest, violations and encoding, but these do not depend
// on any other message, and the encoding is not longer than tvixb_encoded_room
// of its range. If other threads change the offsets, the call may also return
// TVIXB_BAD_RANGE or TVIXB_ROOM_TOO_SMALL; it never reads outside `data`.
#ifndef TVIX_BUILD_H
#define TVIX_BUILD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: begin */

// Size of a digest (BLAKE3-256) in bytes.
#define TVIXB_DIGEST_SIZE 32

// An unknown count (tvixb_context_set_request).
#define TVIXB_ANY 0xffffffffffffffffu

// Default limit of violations kept for a message
// (tvixb_context_set_violation_limit).
#define TVIXB_VIOLATION_LIMIT 100

// The status of a call. An invalid or malformed message is not an error of the
// call: its verdict reports it.
typedef enum tvixb_status {
  TVIXB_OK = 0,
  // An allocation failed. The results are undefined; the context stays usable.
  TVIXB_OUT_OF_MEMORY = 1,
  // For some i, begins[i] > ends[i] or ends[i] > size, or an array of offsets
  // is not aligned as uint64_t. No result was written.
  TVIXB_BAD_RANGE = 2,
  // The encodings exceed the `room` of tvixb_encodings. The results are
  // undefined; the context stays usable.
  TVIXB_ROOM_TOO_SMALL = 3,
} tvixb_status;

// The verdict on one message.
typedef enum tvixb_verdict {
  // Valid, and the bytes are the canonical encoding. Has a digest.
  TVIXB_CANONICAL = 0,
  // Valid, but the bytes are not the canonical encoding. Has a canonical
  // encoding and its digest.
  TVIXB_VALID = 1,
  // Invalid, but all violations are TVIXB_CODE_NOT_SORTED. Has the canonical
  // encoding of the sorted message and its digest.
  TVIXB_UNSORTED = 2,
  // Invalid. Has neither a canonical encoding nor a digest.
  TVIXB_INVALID = 3,
  // Does not decode. Has neither a canonical encoding nor a digest.
  TVIXB_MALFORMED = 4,
} tvixb_verdict;

// The rule that a message violates. tvixb_code_name returns the stable name.
typedef enum tvixb_code {
  TVIXB_CODE_MALFORMED = 0,
  TVIXB_CODE_UNKNOWN_FIELD = 1,
  TVIXB_CODE_REQUIRED = 2,
  TVIXB_CODE_INVALID_ARG = 3,
  TVIXB_CODE_INVALID_NAME = 4,
  TVIXB_CODE_INVALID_DIGEST = 5,
  TVIXB_CODE_INVALID_SYMLINK_TARGET = 6,
  TVIXB_CODE_INVALID_ENV_KEY = 7,
  TVIXB_CODE_INVALID_ENV_VALUE = 8,
  TVIXB_CODE_INVALID_PATH = 9,
  TVIXB_CODE_NOT_SORTED = 10,
  TVIXB_CODE_DUPLICATE = 11,
  TVIXB_CODE_OUTPUT_IS_INPUT = 12,
  TVIXB_CODE_MISSING_OUTPUT = 13,
  TVIXB_CODE_UNEXPECTED_OUTPUT = 14,
  TVIXB_CODE_SIZE_OVERFLOW = 15,
  TVIXB_CODE_INVALID_NEEDLE = 16,
  TVIXB_CODE_NEEDLES_MISMATCH = 17,
  TVIXB_CODE_UNKNOWN_STEP = 18,
  TVIXB_CODE_UNREACHABLE_STEP = 19,
} tvixb_code;

// A violation of a rule. Plain data without pointers.
typedef struct tvixb_violation {
  // Index of the message in the batch.
  uint64_t message;
  // A number that depends on the code and the field:
  // - TVIXB_CODE_MALFORMED: offset in the message, in bytes, at which decoding
  //   stopped
  // - TVIXB_CODE_UNKNOWN_FIELD: tag of the field (number << 3 | wire type)
  // - TVIXB_CODE_NEEDLES_MISMATCH: length of the list
  // - TVIXB_CODE_MISSING_OUTPUT and TVIXB_CODE_UNEXPECTED_OUTPUT in a
  //   "snix.build.v1.BuildResponse": number of outputs of the request
  // - a number, also in a list of numbers: its value
  // - otherwise: size of the value or key in bytes
  uint64_t number;
  // Indices of the list elements on the path, outermost first.
  uint64_t index[2];
  // A tvixb_code.
  uint8_t code;
  // Number of fields on the path, 0 to 5; 0 is the message itself.
  uint8_t depth;
  // Bit i is set if field i of the path is a list element, which has an index.
  uint8_t indexed;
  // Number of bytes used in `sample`, 0 to 22.
  uint8_t sample_size;
  // The variant of the step that the path is in: 0, or an internal number.
  uint8_t variant;
  // Field numbers on the path, outermost first.
  uint8_t field[5];
  // First bytes of the value or key that violates the rule.
  uint8_t sample[22];
} tvixb_violation;

// The violations of one message: the elements [first, first + kept) of
// tvixb_violations.
typedef struct tvixb_violations_of {
  // Index of the message in the batch.
  uint64_t message;
  // Index of its first violation.
  uint64_t first;
  // Number of violations kept: at least 1 and at most the limit of the context.
  // These are the first violations in path order.
  uint64_t kept;
  // Total number of violations, kept or not, saturated at 2^64 - 1.
  uint64_t total;
} tvixb_violations_of;

// The buffer to which tvixb_check writes canonical encodings. The caller owns
// the memory.
typedef struct tvixb_encodings {
  // Receives the encodings back to back. A message without a canonical encoding
  // (TVIXB_INVALID, TVIXB_MALFORMED) has an empty one. May be NULL if `room` is
  // 0.
  uint8_t* data;
  // Capacity of `data` in bytes; tvixb_encoded_room of the messages is always
  // enough.
  size_t room;
  // Receives n offsets: the end of each encoding in bytes. The first encoding
  // begins at offset `first`, each other one at the end of the previous one.
  // Aligned as uint64_t (else TVIXB_BAD_RANGE). May be NULL if n is 0.
  uint64_t* ends;
  // Offset of data[0], to be added to every end; 0 to 2^64 - 1 - room.
  uint64_t first;
} tvixb_encodings;

// The arrays to which tvixb_check writes its results, with one entry for each
// message. The caller owns the memory. The contents are undefined unless the
// call returns TVIXB_OK.
typedef struct tvixb_results {
  // Receives n verdicts (tvixb_verdict). May be NULL if n is 0.
  uint8_t* verdicts;
  // Receives n digests of TVIXB_DIGEST_SIZE bytes, all zero for a message
  // without a digest. If NULL, messages are not hashed.
  uint8_t* digests;
  // If NULL, encodings are not written.
  const tvixb_encodings* encodings;
} tvixb_results;

// A message kind: a message type with its rules. Constant; never freed.
typedef struct tvixb_kind tvixb_kind;

// The memory that calls need besides the caller's arrays, reused from call to
// call, and the violations of the last tvixb_check. Between calls a context
// keeps at most 2 MiB in addition to these violations and to the results of
// tvixb_check_plan. Only one thread at a time may use a context.
typedef struct tvixb_context tvixb_context;

// Returns the kind with the given name, a NUL-terminated string; NULL if no
// kind has this name. The kind is a constant and is never freed. The names are:
//   "tvix.build.v1.BuildRequest", "tvix.build.v1.Build",
//   "tvix.build.v1@2024.BuildRequest", "tvix.build.v1@2024.Build",
//   "tvix.castore.v1.Directory",
//   "snix.build.v1.BuildRequest", "snix.build.v1.BuildResponse",
//   "snix.castore.v1.Directory",
//   "tvix_build.plan.v1.Step", "tvix_build.plan.v1.Plan".
const tvixb_kind* tvixb_kind_find(const char* name);

// Returns a kind by its index, which is 0 or more; NULL if there are not that
// many kinds. Calls with ascending indices return every kind once. The indices
// may change between versions. The kind is a constant and is never freed.
const tvixb_kind* tvixb_kind_at(size_t index);

// Returns the name of a kind: a NUL-terminated constant, which is never freed.
const char* tvixb_kind_name(const tvixb_kind* kind);

// Returns a new context, which the caller must free with tvixb_context_free;
// NULL if the allocation fails.
tvixb_context* tvixb_context_new(void);

// Frees a context and the violations that it owns. Does nothing if `context` is
// NULL.
void tvixb_context_free(tvixb_context* context);

// Limits the violations that later calls of tvixb_check keep for each message,
// 1 to 2^32 - 1; 0 means 1. The limit of a new context is
// TVIXB_VIOLATION_LIMIT. Violations beyond the limit are counted, but not kept.
void tvixb_context_set_violation_limit(tvixb_context* context, uint32_t limit);

// Sets the counts with which later calls of tvixb_check compare each
// "snix.build.v1.BuildResponse": the number of outputs and of refscan_needles
// of its request, each 0 to 2^64 - 2. TVIXB_ANY, the value in a new context,
// means that the count is unknown and not compared. Other kinds ignore both
// counts.
void tvixb_context_set_request(tvixb_context* context, uint64_t output_count,
                               uint64_t needle_count);

// Returns how often a field with this number occurs at the top level of
// data[0 .. size), which should be a canonical message: for example 6 (outputs)
// or 10 (refscan_needles) in a "snix.build.v1.BuildRequest". In other bytes,
// counting stops at the first field that does not decode. `number` is 1 to
// 2^29 - 1; the result for any other number is 0.
uint64_t tvixb_count_fields(const uint8_t* data, size_t size, uint32_t number);

// Finds the fields with this number at the top level of data[0 .. size), which
// should be a canonical message, in which such fields are adjacent. They are
// data[*begin .. *end); if there are none, both are where they would be. In
// other bytes, the search stops at the first field that does not decode.
void tvixb_find_fields(const uint8_t* data, size_t size, uint32_t number,
                       uint64_t* begin, uint64_t* end);

// Checks n messages of one kind. Writes their verdicts and, if `results` has
// arrays for them, their digests and canonical encodings; keeps their
// violations in the context (tvixb_violations).
//
// Message i is data[begins[i] .. ends[i]), with begins[i] <= ends[i] <= size,
// in bytes. `data` needs no alignment; `begins` and `ends` are n offsets each,
// aligned as uint64_t. Messages may be in any order, with gaps between them,
// and may overlap; bytes outside them are not read. `begins` and `ends` may
// overlap too: for contiguous messages with n + 1 offsets, pass offsets and
// offsets + 1. `data` may be NULL if size is 0; `begins` and `ends` may be NULL
// if n is 0.
//
// Returns:
// - TVIXB_OK: every message was checked
// - TVIXB_BAD_RANGE: an offset is out of range, or an array of offsets is not
//   aligned; no result was written
// - TVIXB_OUT_OF_MEMORY: an allocation failed; the results are undefined
// - TVIXB_ROOM_TOO_SMALL: results->encodings->room is too small; the results
//   are undefined
//
// Time is linear in the size of the messages, and O(n log n) in the number of
// elements of unsorted lists. The memory that a call allocates is, in bytes:
// - for the message with the most: 24 for each element of a sorted list; 32
//   more for each element of an unsorted list; 1 for each needle that outputs
//   are compared with; 72 for each unsorted packed list and 32 for each number
//   of the longest one; in a plan, 161 for each step, 64 for each reference
//   and 16 for each output of a step; all of them up to twice as much, because
//   arrays double
// - for each message: 64 for each of its violations, at most the limit of the
//   context, and 32 if it has any; up to twice as much
// - for each message of a window (256 KiB, or a message that is larger): its
//   size if its lists are unsorted and it is smaller than 1 MiB or its encoding
//   is kept; four times its size if its fields are not in canonical form
// The call frees all of it but what a context keeps.
tvixb_status tvixb_check(tvixb_context* context, const tvixb_kind* kind,
                         const uint8_t* data, size_t size,
                         const uint64_t* begins, const uint64_t* ends, size_t n,
                         const tvixb_results* results);

// The steps of a canonical plan, data[0 .. size), in order, and the steps that
// they need.
typedef struct tvixb_steps {
  // Number of steps.
  size_t count;
  // The digests, TVIXB_DIGEST_SIZE bytes each.
  const uint8_t* digests;
  // Step i is data[begins[i] .. ends[i]).
  const uint64_t* begins;
  const uint64_t* ends;
  // Output j of the requests of all steps is
  // data[output_begins[j] .. output_ends[j]). Those of step i have
  // output_starts[i] <= j < output_starts[i + 1].
  const uint64_t* output_starts;
  const uint64_t* output_begins;
  const uint64_t* output_ends;
  // Reference j is to output ref_outputs[j], which step ref_steps[j] makes.
  // Those of step i have ref_starts[i] <= j < ref_starts[i + 1].
  const uint64_t* ref_starts;
  const uint64_t* ref_steps;
  const uint64_t* ref_outputs;
  // The indices of all steps, each after those that it needs: a walk from the
  // roots, depth first, in the order of the references.
  const uint64_t* order;
} tvixb_steps;

// Checks a message, data[0 .. size), of the kind "tvix_build.plan.v1.Plan", as
// tvixb_check does. Writes the verdict (tvixb_verdict) and, unless `digest` is
// NULL, the digest; keeps the violations. If the plan is canonical, sets *steps
// to its steps, otherwise to zeros. The arrays belong to the context and are
// valid until its next call of tvixb_check or tvixb_check_plan, or until it is
// freed. `data` may be NULL if size is 0.
//
// Returns TVIXB_OK, or TVIXB_OUT_OF_MEMORY: the verdict and the digest are then
// undefined. In addition to what tvixb_check allocates: 72 bytes for each step,
// 16 for each reference and 16 for each output of a step; up to twice as much.
tvixb_status tvixb_check_plan(tvixb_context* context, const uint8_t* data,
                              size_t size, uint8_t* verdict, uint8_t* digest,
                              tvixb_steps* steps);

// Returns an upper bound of the total size in bytes of the canonical encodings
// of n messages, saturated at SIZE_MAX: the size of the messages, or twice
// their size for kinds with lists of numbers, which need not be packed in the
// input. `begins` and `ends` are as for tvixb_check, but a range that is not
// within `size` bytes counts 0, and the result is 0 if an array is not aligned:
// tvixb_check rejects both.
size_t tvixb_encoded_room(const tvixb_kind* kind, size_t size,
                          const uint64_t* begins, const uint64_t* ends,
                          size_t n);

// Returns the violations of the context's last tvixb_check, ordered by message
// and, within a message, by path and code. Sets *count to their number; the
// result may be NULL if that is 0. The array belongs to the context and is
// valid until the next tvixb_check with it, or until it is freed. The array is
// incomplete if tvixb_check did not return TVIXB_OK.
const tvixb_violation* tvixb_violations(const tvixb_context* context,
                                        size_t* count);

// Returns an entry for each message of the context's last tvixb_check that has
// violations, in ascending order of the message. Sets *count to the number of
// entries; the result may be NULL if that is 0. Lifetime and completeness are
// as for tvixb_violations.
const tvixb_violations_of* tvixb_violations_by_message(
    const tvixb_context* context, size_t* count);

// Turns `count` entries for a part of a batch into entries for the whole batch:
// adds `messages`, the number of messages before the part, to each `message`,
// and `violations`, the number of violations before it, to each `first`.
// Modifies `entries`, a copy that the caller owns, in place. `entries` may be
// NULL if count is 0.
void tvixb_violations_rebase(tvixb_violations_of* entries, size_t count,
                             uint64_t messages, uint64_t violations);

// Writes the BLAKE3-256 digest of data[begins[i] .. ends[i]), which may be any
// bytes, to digests[32 * i .. 32 * i + 32) for each i < n. `data`, `begins` and
// `ends` are as for tvixb_check; `digests` may be NULL if n is 0. Hashes
// several ranges at once, so that many short ranges are as fast as a long one.
// Does not allocate.
//
// Returns:
// - TVIXB_OK: all digests were written
// - TVIXB_BAD_RANGE: an offset is out of range, or an array of offsets is not
//   aligned; nothing was written
tvixb_status tvixb_blake3_many(const uint8_t* data, size_t size,
                               const uint64_t* begins, const uint64_t* ends,
                               size_t n, uint8_t* digests);

// Returns the stable name of a code (tvixb_code), for example "not_sorted": a
// NUL-terminated constant, which is never freed. Returns NULL for any other
// number.
const char* tvixb_code_name(uint8_t code);

// Writes the path of a violation, for example "inputs[3].file.digest", to
// `text` in ASCII; an empty string for the message itself. The violation must
// come from a check of the same kind. Truncates the path to `capacity` bytes
// including the terminating NUL, which is always written unless capacity is 0.
// `text` may be NULL if capacity is 0. Returns the length of the complete path
// without the NUL.
size_t tvixb_violation_path(const tvixb_kind* kind,
                            const tvixb_violation* violation, char* text,
                            size_t capacity);

// Writes a description of a violation for people to `text` in ASCII: what was
// expected and what was found. The text may change between versions. Parameters
// and result are as for tvixb_violation_path.
size_t tvixb_violation_message(const tvixb_kind* kind,
                               const tvixb_violation* violation, char* text,
                               size_t capacity);

// The status of tvixb_split_delimited.
typedef enum tvixb_split_status {
  // All complete records were found, or `capacity` records. The bytes from
  // *consumed on are an incomplete record, or records beyond the capacity.
  TVIXB_SPLIT_OK = 0,
  // The length at *consumed is longer than 5 bytes or greater than 2^31 - 1.
  // The records before it were found.
  TVIXB_SPLIT_BAD_LENGTH = 1,
} tvixb_split_status;

// Finds the records in data[0 .. size), a part of a size-delimited stream that
// begins at a record. A record is a length, a varint of at most 5 bytes and at
// most 2^31 - 1, and a message of that many bytes.
//
// Writes at most `capacity` ranges of messages, as tvixb_check takes them, to
// `begins` and `ends`, which are aligned as uint64_t and may be NULL if
// capacity is 0. Sets *count to the number of ranges and *consumed to the
// offset in bytes of the end of the last record found, with either status. Does
// not allocate.
tvixb_split_status tvixb_split_delimited(const uint8_t* data, size_t size,
                                         uint64_t* begins, uint64_t* ends,
                                         size_t capacity, size_t* count,
                                         size_t* consumed);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif  // TVIX_BUILD_H
