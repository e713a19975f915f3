// SPDX-License-Identifier: MIT
//
// tvix_build: checks, canonicalizes and hashes serialized messages of the tvix
// build protocol. This is the whole public interface of the C library.
//
// Everything works on batches of serialized protobuf messages; one message is
// a batch of one. docs/canonical-form.md defines valid, canonical and digest.
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
// Pointers must not be NULL unless the comment of a function or member says so.
//
// Thread safety: the library has no global mutable state. A context serves one
// call at a time; concurrent threads need a context each. Kinds are constants
// and may be shared.
//
// Other threads may change messages during a call. The call then still returns
// TVIXB_OK and has the same results for all other messages. A changed message
// may get any verdict, digest, violations and encoding, but these depend on no
// other message, and the encoding is at most as long as tvixb_encoded_room says
// of its range. If other threads change ranges, the call may also return
// TVIXB_BAD_RANGE or TVIXB_ROOM_TOO_SMALL; it reads no byte outside of `data`.
#ifndef TVIX_BUILD_H
#define TVIX_BUILD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: begin */

// Bytes of a digest (BLAKE3-256).
#define TVIXB_DIGEST_SIZE 32

// An unknown number (tvixb_context_set_request).
#define TVIXB_ANY 0xffffffffffffffffu

// Violations that are kept for one message unless
// tvixb_context_set_violation_limit says otherwise.
#define TVIXB_VIOLATION_LIMIT 100

// What a call returns. A bad message is never an error of the call: its verdict
// says so.
typedef enum tvixb_status {
  TVIXB_OK = 0,
  // An allocation failed. The results are undefined, the context stays usable.
  TVIXB_OUT_OF_MEMORY = 1,
  // begins[i] > ends[i], or ends[i] > size, for some i; or an array of offsets
  // is not aligned as uint64_t. Nothing was checked.
  TVIXB_BAD_RANGE = 2,
  // The encodings exceed the `room` of tvixb_encodings. The results are
  // undefined, the context stays usable.
  TVIXB_ROOM_TOO_SMALL = 3,
} tvixb_status;

// The result for one message.
typedef enum tvixb_verdict {
  // Valid, and its bytes are its canonical encoding. Has a digest.
  TVIXB_CANONICAL = 0,
  // Valid, but encoded in another way. Has a digest.
  TVIXB_VALID = 1,
  // Invalid, its only violations being TVIXB_NOT_SORTED. Has a digest, that of
  // the sorted message.
  TVIXB_UNSORTED = 2,
  // Invalid. Has neither canonical encoding nor digest.
  TVIXB_INVALID = 3,
  // Does not decode. Has neither canonical encoding nor digest.
  TVIXB_MALFORMED = 4,
} tvixb_verdict;

// Which rule a message violates; tvixb_code_name gives the stable name.
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
} tvixb_code;

// One violated rule. Plain data without pointers.
typedef struct tvixb_violation {
  // Index of the message in the batch.
  uint64_t message;
  // What a number says of the violation. Malformed: the offset in the message,
  // in bytes, where decoding stopped. Unknown field: the field's tag (number <<
  // 3 | wire type). In a list of numbers: the number. Missing or unexpected
  // output of a "snix.build.v1.BuildResponse": the number of outputs of its
  // request. TVIXB_CODE_NEEDLES_MISMATCH: the length of the list. Otherwise:
  // the size of the value or key in bytes.
  uint64_t number;
  // Indices of the list elements along the path, outermost first.
  uint64_t index[2];
  // A tvixb_code.
  uint8_t code;
  // Number of fields along the path; 0 for the message itself.
  uint8_t depth;
  // Bit i is set if field i of the path is a list and has its index.
  uint8_t indexed;
  // Number of bytes of `sample` in use, 0 to 24.
  uint8_t sample_size;
  // Field numbers along the path.
  uint8_t field[4];
  // Beginning of the value or key that violates the rule.
  uint8_t sample[24];
} tvixb_violation;

// The violations of one message: violations[first .. first + kept) of
// tvixb_violations.
typedef struct tvixb_violations_of {
  // Index of the message in the batch.
  uint64_t message;
  uint64_t first;
  // At most the limit of the context; the first ones in the order of the path.
  uint64_t kept;
  // Total number of violations, kept or not; 2^64 - 1 if there are more.
  uint64_t total;
} tvixb_violations_of;

// Where a call writes canonical encodings. The caller owns the memory.
typedef struct tvixb_encodings {
  // The encodings back to back, an empty one where there is none
  // (TVIXB_INVALID, TVIXB_MALFORMED). May be NULL if `room` is 0.
  uint8_t* data;
  // Capacity of `data` in bytes: tvixb_encoded_room of the messages is enough.
  // If the encodings exceed it, the call returns TVIXB_ROOM_TOO_SMALL.
  size_t room;
  // n offsets in bytes, aligned as uint64_t: where each encoding ends, counted
  // from an origin at which the first one begins at `first`. May be NULL if n
  // is 0.
  uint64_t* ends;
  uint64_t first;
} tvixb_encodings;

// Where a call writes its results: arrays of the caller, one entry a message.
// All results are undefined unless the call returns TVIXB_OK.
typedef struct tvixb_results {
  // n verdicts (tvixb_verdict). May be NULL if n is 0.
  uint8_t* verdicts;
  // n digests of TVIXB_DIGEST_SIZE bytes; all zero where there is none. NULL:
  // nothing is hashed.
  uint8_t* digests;
  // NULL: encodings are not written.
  const tvixb_encodings* encodings;
} tvixb_results;

// Message kind: a row of a schema. Constant, never freed.
typedef struct tvixb_kind tvixb_kind;

// Owns all memory that calls need besides the caller's arrays; reused from call
// to call. Keeps the violations of the last call.
typedef struct tvixb_context tvixb_context;

// The kind with the given name; NULL if there is none. The names:
//   "tvix.build.v1.BuildRequest", "tvix.build.v1.Build",
//   "tvix.build.v1@2024.BuildRequest", "tvix.build.v1@2024.Build",
//   "tvix.castore.v1.Directory",
//   "snix.build.v1.BuildRequest", "snix.build.v1.BuildResponse",
//   "snix.castore.v1.Directory".
const tvixb_kind* tvixb_kind_find(const char* name);

// The name of a kind, a constant that is never freed.
const char* tvixb_kind_name(const tvixb_kind* kind);

// A new context, to be freed with tvixb_context_free; NULL if an allocation
// failed.
tvixb_context* tvixb_context_new(void);

// Frees a context and the violations that it has lent. NULL is fine.
void tvixb_context_free(tvixb_context* context);

// Keeps at most `limit` violations of a message in later calls; all of them are
// counted. 0 is taken as 1.
void tvixb_context_set_violation_limit(tvixb_context* context, uint32_t limit);

// Sets the request of each "snix.build.v1.BuildResponse" in later calls: its
// number of outputs and of refscan_needles, 0 to 2^64 - 2. TVIXB_ANY, the value
// in a new context, means that the number is unknown and not compared. Other
// kinds ignore both.
void tvixb_context_set_request(tvixb_context* context, uint64_t output_count,
                               uint64_t needle_count);

// The number of fields with this field number, 1 to 2^29 - 1, at the top level
// of a canonical message, such as 6, outputs, or 10, refscan_needles, in a
// "snix.build.v1.BuildRequest". In any other message, fields behind the first
// one that does not decode are not counted.
uint64_t tvixb_count_fields(const uint8_t* data, size_t size, uint32_t number);

// Checks n messages of one kind: verdict, violations and, if the results have
// arrays for them, digest and canonical encoding of each.
//
// Message i is data[begins[i] .. ends[i]): offsets in bytes, in arrays aligned
// as uint64_t, with begins[i] <= ends[i] <= size. Messages may lie apart and
// may overlap; no byte outside of them is read. For messages that lie back to
// back, offsets[n + 1], pass offsets and offsets + 1. `data` may be NULL if
// size is 0, `begins` and `ends` if n is 0. The call keeps no pointer of the
// caller.
//
// Returns TVIXB_OK, TVIXB_OUT_OF_MEMORY, TVIXB_BAD_RANGE or
// TVIXB_ROOM_TOO_SMALL. Time is linear in the bytes, n log n in unsorted list
// elements. Memory is a small multiple of the largest message.
tvixb_status tvixb_check(tvixb_context* context, const tvixb_kind* kind,
                         const uint8_t* data, size_t size,
                         const uint64_t* begins, const uint64_t* ends, size_t n,
                         const tvixb_results* results);

// The number of bytes that the canonical encodings of n messages have at most;
// SIZE_MAX if it is larger than that. It is the size of the messages, or twice
// the size for kinds with lists of numbers, which need not be packed. Ranges as
// for tvixb_check; those that do not lie within `size` bytes, and all if an
// array is not aligned, count nothing: tvixb_check rejects them.
size_t tvixb_encoded_room(const tvixb_kind* kind, size_t size,
                          const uint64_t* begins, const uint64_t* ends,
                          size_t n);

// The violations of the last call, grouped by message in ascending order, in
// each message in the order of the path. *count is set to their number; if that
// is 0, the result may be NULL. Lent by the context until its next call.
const tvixb_violation* tvixb_violations(const tvixb_context* context,
                                        size_t* count);

// For each message of the last call that has violations, in ascending order,
// which they are. *count is set to the number of these messages; if that is 0,
// the result may be NULL. Lent by the context until its next call.
const tvixb_violations_of* tvixb_violations_by_message(
    const tvixb_context* context, size_t* count);

// Turns `count` entries for a part of a batch into entries for the whole batch:
// adds the number of messages before the part to each `message`, and the number
// of violations before it to each `first`. `entries` may be NULL if count is 0.
void tvixb_violations_rebase(tvixb_violations_of* entries, size_t count,
                             uint64_t messages, uint64_t violations);

// Writes the BLAKE3-256 digest of data[begins[i] .. ends[i]), which need not be
// a message, to digests[32 * i .. 32 * i + 32) for each of the n ranges. Ranges
// as for tvixb_check. Lanes of the CPU are filled across ranges, so that many
// short ranges are as fast as a long one. Allocates nothing. Returns TVIXB_OK,
// or TVIXB_BAD_RANGE and writes nothing.
tvixb_status tvixb_blake3_many(const uint8_t* data, size_t size,
                               const uint64_t* begins, const uint64_t* ends,
                               size_t n, uint8_t* digests);

// The stable name of a code (tvixb_code), such as "not_sorted", a constant that
// is never freed. NULL if there is no such code.
const char* tvixb_code_name(uint8_t code);

// Writes the path of a violation of this kind, such as "inputs[3].file.digest",
// and a NUL to text, cut to `capacity` bytes with the NUL. Returns the length
// of the whole path without the NUL. `text` may be NULL if capacity is 0.
size_t tvixb_violation_path(const tvixb_kind* kind,
                            const tvixb_violation* violation, char* text,
                            size_t capacity);

// Writes a message for people in ASCII, what was expected and what was found,
// and a NUL to text. As tvixb_violation_path.
size_t tvixb_violation_message(const tvixb_kind* kind,
                               const tvixb_violation* violation, char* text,
                               size_t capacity);

// Whether a piece of a size-delimited stream could be split.
typedef enum tvixb_split_status {
  // Every whole record was found, or the arrays are full. The rest, if any, is
  // the beginning of a record, or records that did not fit the arrays.
  TVIXB_SPLIT_OK = 0,
  // The length at *consumed is longer than 5 bytes or above 2^31 - 1.
  TVIXB_SPLIT_BAD_LENGTH = 1,
} tvixb_split_status;

// Finds the records of a piece of a size-delimited stream, each a varint
// length, then a message. Writes at most `capacity` ranges for tvixb_check to
// begins and ends, and their number to *count; sets *consumed to the offset in
// bytes where the last of these records ends.
tvixb_split_status tvixb_split_delimited(const uint8_t* data, size_t size,
                                         uint64_t* begins, uint64_t* ends,
                                         size_t capacity, size_t* count,
                                         size_t* consumed);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif  // TVIX_BUILD_H
