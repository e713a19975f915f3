// SPDX-License-Identifier: MIT
//
// Reads, hashes and saves files. A file that changes during reading gets an
// error, as far as its size and timestamps show the change. The core does not
// depend on this file. On Windows, which has no openat, every file gets ENOSYS.
//
// The rules of tvix_build.h for NULL, alignment, aliasing, retention and
// ownership apply here too. The functions have no state: any number of threads
// may call them, each with its own buffer.
#ifndef TVIXB_FILES_H
#define TVIXB_FILES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: begin */

// Size in bytes of the buffer that the caller passes to the functions below.
#define TVIXB_FILES_BUFFER_SIZE 524290
// Size in bytes of a part of a large file.
#define TVIXB_FILES_PART_SIZE 262144
// A file is large if it has more bytes than this: 64 parts.
#define TVIXB_FILES_LARGE_SIZE 16777216
// Added to an errno from saving a file, to tell it from one from reading it.
#define TVIXB_FILE_UNSAVED 65536

// The working directory, instead of a descriptor: AT_FDCWD.
extern const int tvixb_files_here;

// The status of a file. A positive status is an errno.
typedef enum tvixb_file_status {
  TVIXB_FILE_OK = 0,
  // The file is not a regular file, or changed during reading.
  TVIXB_FILE_CHANGED = -1,
  // The file is large and was not read: call tvixb_file_hash_parts, from
  // several threads if you like, and then tvixb_file_join.
  TVIXB_FILE_LARGE = -2,
} tvixb_file_status;

// The arrays to which tvixb_files_hash writes its results, with one entry for
// each file. The caller owns the memory. Unless a file's status is
// TVIXB_FILE_OK, its other entries are undefined.
typedef struct tvixb_files {
  int32_t* statuses;    // tvixb_file_status or errno
  uint64_t* sizes;      // in bytes
  uint8_t* executable;  // 1 if the owner may execute the file, else 0
  uint8_t* digests;     // BLAKE3-256, 32 bytes each
} tvixb_files;

// Reads and hashes n regular files in a directory: an open descriptor, or
// tvixb_files_here. `names` has their names back to back, each with a
// terminating NUL. Does not follow symbolic links. `buffer` has
// TVIXB_FILES_BUFFER_SIZE bytes. Writes a status for each file: TVIXB_FILE_OK,
// TVIXB_FILE_CHANGED, TVIXB_FILE_LARGE or an errno.
void tvixb_files_hash(int directory, const char* names, size_t n,
                      uint8_t* buffer, const tvixb_files* found);

// The directories to which tvixb_files_save saves files, as open descriptors.
typedef struct tvixb_files_target {
  int saved;  // saved files, DD/D{62} by the hexadecimal digits of the digest
  int incoming;  // new files, D{64}
} tvixb_files_target;

// As tvixb_files_hash, and saves the bytes that it hashed. A digest that is in
// `target->saved` is not saved again: its modification time is set to second 1,
// as that of new files, which also sets its status change time to now. New
// files get mode 0444. The bytes are not synchronized with the disk. A file of
// more than TVIXB_FILES_PART_SIZE bytes is neither read nor saved, and gets the
// status TVIXB_FILE_LARGE. The status of a file that cannot be saved is an
// errno, with TVIXB_FILE_UNSAVED added.
void tvixb_files_save(int directory, const char* names, size_t n,
                      uint8_t* buffer, const tvixb_files* found,
                      const tvixb_files_target* target);

// Moves n files of `target->incoming` to `target->saved`, with replacement.
// `names` has their names back to back, D{64}, each with a terminating NUL.
// Makes missing directories. Returns 0, or the errno of the first file that
// cannot be moved.
int32_t tvixb_files_place(const tvixb_files_target* target, const char* names,
                          size_t n);

// Writes all data of the file system of an open file to disk. Returns 0 or an
// errno. Where the system has no syncfs, synchronizes all file systems.
int32_t tvixb_files_sync(int file);

// Makes the open, empty file `target` share the blocks of `source`. Returns 0
// or an errno, EOPNOTSUPP where the system cannot.
int32_t tvixb_file_clone(int source, int target);

// Writes the chaining values of the parts [first, end) of an open file of
// `size` bytes to cvs[32 * first .. 32 * end). The file must have at least two
// parts. `buffer` has TVIXB_FILES_BUFFER_SIZE bytes. Returns TVIXB_FILE_OK,
// TVIXB_FILE_CHANGED if it finds that the file does not have `size` bytes, or
// an errno. The caller must compare size and timestamps before and after.
int32_t tvixb_file_hash_parts(int file, uint64_t size, uint64_t first,
                              uint64_t end, uint8_t* buffer, uint8_t* cvs);

// Writes the digest of a file of n parts, n >= 2, to digest[0 .. 32).
// Overwrites the n chaining values in `cvs`.
void tvixb_file_join(uint8_t* cvs, size_t n, uint8_t* digest);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif  // TVIXB_FILES_H
