// SPDX-License-Identifier: MIT
//
// tvix_build: checks, canonicalizes and hashes serialized messages of the tvix
// build protocol. This is the whole public interface of the C library.
//
// Everything works on batches of serialized protobuf messages; one message is
// a batch of one. What is valid, what is canonical and what a digest is says
// docs/canonical-form.md.
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
// Thread safety: the library has no global mutable state. A context serves one
// call at a time; threads that work at once need a context each. Kinds are
// constants and may be shared.
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
  // An allocation failed. The results are undefined, the context is usable.
  TVIXB_OUT_OF_MEMORY = 1,
  // begins[i] > ends[i], or ends[i] > size, for some i; or an array of offsets
  // is not aligned as uint64_t. Nothing was checked.
  TVIXB_BAD_RANGE = 2,
  // The encodings exceed the `room` of tvixb_encodings. The results are
  // undefined, the context is usable.
  TVIXB_ROOM_TOO_SMALL = 3,
} tvixb_status;

// What is known of one message.
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

// One violated rule. Plain data: it refers to nothing that could go away.
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

// The violations of one message: violations[first .. first + kept).
typedef struct tvixb_violations_of {
  // Index of the message in the batch.
  uint64_t message;
  uint64_t first;
  // At most the limit of the context; the first ones in the order of the path.
  uint64_t kept;
  // How many there are in truth.
  uint64_t total;
} tvixb_violations_of;

// Where a call writes canonical encodings: memory of the caller.
typedef struct tvixb_encodings {
  // The encodings back to back, an empty one where there is none
  // (TVIXB_INVALID, TVIXB_MALFORMED).
  uint8_t* data;
  // Bytes of room for them: tvixb_encoded_room of the messages is enough. If
  // the encodings exceed it, the call returns TVIXB_ROOM_TOO_SMALL.
  size_t room;
  // n offsets in bytes, where each encoding ends; `first` is where the first
  // one begins, which need not be 0.
  uint64_t* ends;
  uint64_t first;
} tvixb_encodings;

// Where a call writes its results: arrays of the caller, one entry a message.
typedef struct tvixb_results {
  // n verdicts (tvixb_verdict). All results are undefined unless the call
  // returns TVIXB_OK.
  uint8_t* verdicts;
  // n digests of TVIXB_DIGEST_SIZE bytes; all zero where there is none. NULL if
  // nobody wants them: then nothing is hashed.
  uint8_t* digests;
  // NULL if nobody wants them.
  const tvixb_encodings* encodings;
} tvixb_results;

// Message kind: a row of a schema. Constant, lives for ever.
typedef struct tvixb_kind tvixb_kind;

// Owns all memory that calls need besides the caller's arrays; reused from call
// to call. Keeps what violations the last call found.
typedef struct tvixb_context tvixb_context;

// The kind with the given name, NULL if there is none:
//   "tvix.build.v1.BuildRequest", "tvix.build.v1.Build",
//   "tvix.build.v1@2024.BuildRequest", "tvix.build.v1@2024.Build",
//   "tvix.castore.v1.Directory",
//   "snix.build.v1.BuildRequest", "snix.build.v1.BuildResponse",
//   "snix.castore.v1.Directory".
const tvixb_kind* tvixb_kind_find(const char* name);

// The name of a kind, a constant.
const char* tvixb_kind_name(const tvixb_kind* kind);

// A new context, NULL if memory is out. To be freed with tvixb_context_free.
tvixb_context* tvixb_context_new(void);

// Frees a context and all that it lends. NULL is fine.
void tvixb_context_free(tvixb_context* context);

// Keeps at most `limit` violations of a message (at least 1) in later calls;
// all of them are counted.
void tvixb_context_set_violation_limit(tvixb_context* context, uint32_t limit);

// Sets the request of each "snix.build.v1.BuildResponse" in later calls: its
// number of outputs and of refscan_needles, 0 to 2^64 - 2. TVIXB_ANY, the value
// in a new context, means that the number is unknown and not compared. Other
// kinds ignore both.
void tvixb_context_set_request(tvixb_context* context, uint64_t output_count,
                               uint64_t needle_count);

// How many fields with this number a canonical message has on its highest
// level, such as 6, outputs, or 10, refscan_needles, in a
// "snix.build.v1.BuildRequest". In any other message fields behind the first
// that does not decode are not counted.
uint64_t tvixb_count_fields(const uint8_t* data, size_t size, uint32_t number);

// Checks n messages of one kind: verdict, digest, violations and, where wanted,
// canonical encoding of each.
//
// Message i is data[begins[i] .. ends[i]), offsets in bytes, of `size` bytes
// in all; messages may lie apart and may overlap, and no byte outside of them
// is read. For messages that lie back to back, offsets[n + 1], pass offsets and
// offsets + 1. Time is linear in the bytes, n log n in unsorted list elements.
// Memory is a small multiple of the largest message.
tvixb_status tvixb_check(tvixb_context* context, const tvixb_kind* kind,
                         const uint8_t* data, size_t size,
                         const uint64_t* begins, const uint64_t* ends, size_t n,
                         const tvixb_results* results);

// How many bytes the canonical encodings of n messages take at most; SIZE_MAX
// if more than that. It is how many the messages have themselves, or twice as
// many for kinds with lists of numbers, which need not be packed. Ranges that
// do not lie within `size` bytes, or are not aligned, count nothing:
// tvixb_check refuses them.
size_t tvixb_encoded_room(const tvixb_kind* kind, size_t size,
                          const uint64_t* begins, const uint64_t* ends,
                          size_t n);

// The violations of the last call, grouped by message in ascending order, in
// each message in the order of the path. Lent by the context until its next
// call; *count is their number.
const tvixb_violation* tvixb_violations(const tvixb_context* context,
                                        size_t* count);

// For each message of the last call that has violations, in ascending order,
// which they are. Lent by the context until its next call.
const tvixb_violations_of* tvixb_violations_by_message(
    const tvixb_context* context, size_t* count);

// Makes entries of a part of a batch entries of the whole: adds the number of
// messages before the part to each message, and the number of violations before
// it to each first.
void tvixb_violations_rebase(tvixb_violations_of* entries, size_t count,
                             uint64_t messages, uint64_t violations);

// Writes the BLAKE3-256 digest of data[begins[i] .. ends[i]) to digests[32 * i
// .. 32 * i + 32) for the n ranges, whatever is in them. Ranges as for
// tvixb_check. The work is spread over the lanes of the CPU across ranges, so
// that many short ones are as fast as a long one. Needs no context; allocates
// nothing.
tvixb_status tvixb_blake3_many(const uint8_t* data, size_t size,
                               const uint64_t* begins, const uint64_t* ends,
                               size_t n, uint8_t* digests);

// The stable name of a code, such as "not_sorted", a constant. NULL if there is
// none.
const char* tvixb_code_name(uint8_t code);

// Writes a violation's path, such as "inputs[3].file.digest", and a NUL, cut to
// `capacity` bytes, into text. Returns the length of the whole path.
size_t tvixb_violation_path(const tvixb_kind* kind,
                            const tvixb_violation* violation, char* text,
                            size_t capacity);

// Writes for people what was expected and what was found, in ASCII, and a NUL,
// cut to `capacity` bytes, into text. Returns the length of the whole message.
size_t tvixb_violation_message(const tvixb_kind* kind,
                               const tvixb_violation* violation, char* text,
                               size_t capacity);

// Why a size-delimited stream cannot go on.
typedef enum tvixb_split_status {
  // Every whole record was found; what is left, if anything, is the beginning
  // of a record, or the arrays are full.
  TVIXB_SPLIT_OK = 0,
  // The length at *consumed is longer than 5 bytes or above 2^31 - 1.
  TVIXB_SPLIT_BAD_LENGTH = 1,
} tvixb_split_status;

// Finds the records of a piece of a size-delimited stream (each a varint
// length, then a message): at most `capacity` ranges for tvixb_check go to
// begins and ends, their number to *count; *consumed is where the last whole
// record ends, an offset in bytes.
tvixb_split_status tvixb_split_delimited(const uint8_t* data, size_t size,
                                         uint64_t* begins, uint64_t* ends,
                                         size_t capacity, size_t* count,
                                         size_t* consumed);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif  // TVIX_BUILD_H
