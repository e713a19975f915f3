// SPDX-License-Identifier: MIT
//
// Reads and hashes files. One that changes while it is read, as far as its size
// and its times say so, is an error. Stands on top of the core, which knows no
// files.
//
// Thread safety: there is no state; a buffer serves one call at a time.
#ifndef TVIXB_FILES_H
#define TVIXB_FILES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: begin */

// Bytes of the buffer that the calls below read into.
#define TVIXB_FILES_BUFFER_SIZE 524290
// Bytes of a part of a large file.
#define TVIXB_FILES_PART_SIZE 262144
// Files with more bytes than that are large: 64 parts.
#define TVIXB_FILES_LARGE_SIZE 16777216

// The working directory in place of an open folder (AT_FDCWD).
#define TVIXB_FILES_HERE -100

// What became of a file; a positive number is an errno.
typedef enum tvixb_file_status {
  TVIXB_FILE_OK = 0,
  // It is no regular file, or it was written to meanwhile.
  TVIXB_FILE_CHANGED = -1,
  // It was not read: hash it part by part, in several threads.
  TVIXB_FILE_LARGE = -2,
} tvixb_file_status;

// Where a call writes what it finds: arrays of the caller, one entry a file;
// undefined but for the status unless that is TVIXB_FILE_OK.
typedef struct tvixb_files {
  int32_t* statuses;
  uint64_t* sizes;      // in bytes
  uint8_t* executable;  // 1 if the owner may execute it, else 0
  uint8_t* digests;     // 32 bytes each
} tvixb_files;

// Reads and hashes n regular files in a folder, an open descriptor or
// TVIXB_FILES_HERE. Their names lie back to back, each with a NUL at its
// end. Symbolic links are not followed.
void tvixb_files_hash(int folder, const char* names, size_t n, uint8_t* buffer,
                      const tvixb_files* found);

// Writes the chaining values of the parts `first` to `end` of an open file of
// `size` bytes, which has at least two parts, to cvs[32 * first .. 32 * end).
// Returns a status: TVIXB_FILE_CHANGED if there are not as many bytes. Whether
// the file was written to is for the caller to find out.
int32_t tvixb_file_hash_parts(int file, uint64_t size, uint64_t first,
                              uint64_t end, uint8_t* buffer, uint8_t* cvs);

// Writes the digest of a file of n parts, n >= 2, to digest. The chaining
// values are overwritten.
void tvixb_file_join(uint8_t* cvs, size_t n, uint8_t* digest);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif  // TVIXB_FILES_H
