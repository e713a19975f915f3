// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "files.h"

#include <assert.h>
#include <errno.h>

#include "hash.h"

#define HASH_SIZE 32                   // of digests and chaining values
#define NAME_SIZE (2 * HASH_SIZE + 1)  // of D{64} with its NUL
#define PLACE_SIZE (NAME_SIZE + 1)     // of DD/D{62} with its NUL

void tvixb_file_join(uint8_t* cvs, size_t n, uint8_t* digest) {
  tvixb_hash_join(cvs, n, digest);
}

#ifdef _WIN32

const int tvixb_files_here = -1;

int32_t tvixb_file_hash_parts(int file, uint64_t size, uint64_t first,
                              uint64_t end, uint8_t* buffer, uint8_t* cvs) {
  (void)file, (void)size, (void)first, (void)end, (void)buffer, (void)cvs;
  return ENOSYS;
}

void tvixb_files_hash(int directory, const char* names, size_t n,
                      uint8_t* buffer, const tvixb_files* found) {
  (void)directory, (void)names, (void)buffer;
  for (size_t i = 0; i < n; i++) found->statuses[i] = ENOSYS;
}

void tvixb_files_save(int directory, const char* names, size_t n,
                      uint8_t* buffer, const tvixb_files* found,
                      const tvixb_files_target* target) {
  (void)target;
  tvixb_files_hash(directory, names, n, buffer, found);
}

int32_t tvixb_files_place(const tvixb_files_target* target, const char* names,
                          size_t n) {
  (void)target, (void)names, (void)n;
  return ENOSYS;
}

int32_t tvixb_files_sync(int file) {
  (void)file;
  return ENOSYS;
}

int32_t tvixb_file_clone(int source, int target) {
  (void)source, (void)target;
  return ENOSYS;
}

#else

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/ioctl.h>
#ifndef FICLONE
#define FICLONE _IOW(0x94, 9, int)  // of linux/fs.h, since Linux 4.5
#endif
#endif

#ifdef __APPLE__
#define st_mtim st_mtimespec
#define st_ctim st_ctimespec
#endif

#define LARGE_PARTS (TVIXB_FILES_LARGE_SIZE / TVIXB_FILES_PART_SIZE)
#define BATCH_FILES 256

static_assert(TVIXB_FILES_PART_SIZE == TVIXB_HASH_PART_SIZE, "same parts");
// Room for two parts, each with one more byte to detect the end of the file.
static_assert(TVIXB_FILES_BUFFER_SIZE == 2 * (TVIXB_FILES_PART_SIZE + 1),
              "room for a file after others");

const int tvixb_files_here = AT_FDCWD;

// Small files that were read and will be hashed together. `views` has an entry
// for every file since the last run; its data is NULL if there is nothing to
// hash.
typedef struct batch {
  uint8_t* buffer;
  size_t used;  // bytes used in the buffer
  const tvixb_files* found;
  const tvixb_files_target* target;  // NULL: do not save the files
  size_t first;                      // the index of the first file
  size_t count;
  tvixb_view views[BATCH_FILES];
} batch;

// Writes all bytes. Returns 0 or an errno.
static int32_t write_all(int file, const uint8_t* data, size_t size) {
  while (size) {
    ssize_t count = write(file, data, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    data += count;
    size -= (size_t)count;
  }
  return 0;
}

// Writes DD/D{62} for D{64}.
static void place_of(const char* name, char* place) {
  memcpy(place, name, 2);
  place[2] = '/';
  memcpy(place + 3, name + 2, NAME_SIZE - 2);
}

// Saves bytes unless their digest is saved already. Returns 0 or an errno.
static int32_t save(const tvixb_files_target* target, const uint8_t* digest,
                    tvixb_view view) {
  char name[NAME_SIZE], path[PLACE_SIZE];
  for (size_t i = 0; i < HASH_SIZE; i++) {
    name[2 * i] = "0123456789abcdef"[digest[i] >> 4];
    name[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
  }
  name[2 * HASH_SIZE] = 0;
  place_of(name, path);
  const struct timespec times[2] = {{1, 0}, {1, 0}};
  if (!utimensat(target->saved, path, times, AT_SYMLINK_NOFOLLOW)) return 0;
  if (errno != ENOENT) return errno;
  int file = openat(target->incoming, name,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
  if (file < 0) return errno == EEXIST ? 0 : errno;  // the same bytes again
  int32_t status = write_all(file, view.data, view.size);
  if (!status && (fchmod(file, 0444) || futimens(file, times))) status = errno;
  if (close(file) && !status) status = errno;
  return status;
}

static void save_batch(const batch* batch) {
  for (size_t i = 0; i < batch->count; i++) {
    int32_t* status = batch->found->statuses + batch->first + i;
    if (*status || !batch->views[i].data) continue;
    *status = save(batch->target,
                   batch->found->digests + (batch->first + i) * HASH_SIZE,
                   batch->views[i]);
    if (*status) *status += TVIXB_FILE_UNSAVED;
  }
}

static void run_batch(batch* batch) {
  tvixb_hash_many(batch->views, batch->count,
                  batch->found->digests + batch->first * HASH_SIZE);
  if (batch->target) save_batch(batch);
  batch->first += batch->count;
  batch->count = 0;
  batch->used = 0;
}

// Reads `size` bytes into `buffer`. If `last`, the file must end after them,
// and the buffer must have room for one more byte.
static int32_t read_at(int file, uint64_t offset, size_t size, bool last,
                       uint8_t* buffer) {
  size_t wanted = size + last, found = 0;
  for (;;) {
    ssize_t count =
        pread(file, buffer + found, wanted - found, (off_t)(offset + found));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    found += (size_t)count;
    if (!count || found >= size) break;
  }
  return found == size ? TVIXB_FILE_OK : TVIXB_FILE_CHANGED;
}

int32_t tvixb_file_hash_parts(int file, uint64_t size, uint64_t first,
                              uint64_t end, uint8_t* buffer, uint8_t* cvs) {
  for (uint64_t i = first; i < end; i++) {
    uint64_t offset = i * TVIXB_FILES_PART_SIZE, left = size - offset;
    bool last = left <= TVIXB_FILES_PART_SIZE;
    size_t count = last ? (size_t)left : TVIXB_FILES_PART_SIZE;
    int32_t status = read_at(file, offset, count, last, buffer);
    if (status) return status;
    tvixb_hash_part(buffer, count, i, cvs + i * HASH_SIZE);
  }
  return TVIXB_FILE_OK;
}

static int32_t hash_parts(int file, uint64_t size, uint8_t* buffer,
                          uint8_t* digest) {
  uint8_t cvs[LARGE_PARTS * HASH_SIZE];
  uint64_t parts = (size + TVIXB_FILES_PART_SIZE - 1) / TVIXB_FILES_PART_SIZE;
  int32_t status = tvixb_file_hash_parts(file, size, 0, parts, buffer, cvs);
  if (!status) tvixb_hash_join(cvs, parts, digest);
  return status;
}

// The properties that show that a file changed. Has no padding, for memcmp.
typedef struct file_state {
  uint64_t mode, size;
  int64_t times[4];
} file_state;

// Reads the state of a file. Returns its status. With glibc, uses statx, which
// it has since 2.28: code compiled with a current fstat needs 2.33 or newer.
static int32_t state_of(int file, file_state* state) {
#ifdef __GLIBC__
  struct statx found;
  if (statx(file, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &found)) return errno;
  *state = (file_state){
      found.stx_mode,
      found.stx_size,
      {found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec, found.stx_ctime.tv_sec,
       found.stx_ctime.tv_nsec},
  };
#else
  struct stat found;
  if (fstat(file, &found)) return errno;
  *state = (file_state){
      found.st_mode,
      (uint64_t)found.st_size,
      {found.st_mtim.tv_sec, found.st_mtim.tv_nsec, found.st_ctim.tv_sec,
       found.st_ctim.tv_nsec},
  };
#endif
  return TVIXB_FILE_OK;
}

// Reads a file of `size` bytes. Hashes a large file; sets *view to a small one,
// which the caller must add to the batch.
static int32_t read_file(batch* batch, int file, uint64_t size,
                         tvixb_view* view, uint8_t* digest) {
  bool small = size <= TVIXB_FILES_PART_SIZE;
  size_t room = (small ? (size_t)size : TVIXB_FILES_PART_SIZE) + 1;
  if (room > TVIXB_FILES_BUFFER_SIZE - batch->used) run_batch(batch);
  uint8_t* data = batch->buffer + batch->used;
  if (!small) return hash_parts(file, size, data, digest);
  int32_t status = read_at(file, 0, (size_t)size, true, data);
  if (status) return status;
  batch->used += (size_t)size;
  *view = (tvixb_view){data, (size_t)size};
  return TVIXB_FILE_OK;
}

static int32_t hash_file(batch* batch, int file, size_t i, tvixb_view* view) {
  const tvixb_files* found = batch->found;
  file_state before = {0}, after = {0};
  int32_t status = state_of(file, &before);
  if (status) return status;
  if (!S_ISREG(before.mode)) return TVIXB_FILE_CHANGED;
  uint64_t limit =
      batch->target ? TVIXB_FILES_PART_SIZE : TVIXB_FILES_LARGE_SIZE;
  if (before.size > limit) return TVIXB_FILE_LARGE;
  found->sizes[i] = before.size;
  found->executable[i] = (before.mode & S_IXUSR) != 0;
  status =
      read_file(batch, file, before.size, view, found->digests + i * HASH_SIZE);
  if (!status) status = state_of(file, &after);
  if (status) return status;
  return memcmp(&before, &after, sizeof before) ? TVIXB_FILE_CHANGED
                                                : TVIXB_FILE_OK;
}

static int open_file(int directory, const char* name) {
  // O_NONBLOCK: do not wait for a writer if a pipe has replaced the file.
  const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  int file;
  do {
    file = openat(directory, name, flags);
  } while (file < 0 && errno == EINTR);
  return file;
}

static void hash_files(int directory, const char* names, size_t n,
                       uint8_t* buffer, const tvixb_files* found,
                       const tvixb_files_target* target) {
  batch batch;
  batch.buffer = buffer;
  batch.found = found;
  batch.target = target;
  batch.first = batch.count = batch.used = 0;
  for (size_t i = 0; i < n; i++, names += strlen(names) + 1) {
    if (batch.count == BATCH_FILES) run_batch(&batch);
    tvixb_view view = {0};
    int file = open_file(directory, names);
    if (file < 0) {
      found->statuses[i] = errno == ELOOP ? TVIXB_FILE_CHANGED : errno;
    } else {
      found->statuses[i] = hash_file(&batch, file, i, &view);
      close(file);
    }
    batch.views[batch.count++] = view;
  }
  run_batch(&batch);
}

void tvixb_files_hash(int directory, const char* names, size_t n,
                      uint8_t* buffer, const tvixb_files* found) {
  hash_files(directory, names, n, buffer, found, NULL);
}

void tvixb_files_save(int directory, const char* names, size_t n,
                      uint8_t* buffer, const tvixb_files* found,
                      const tvixb_files_target* target) {
  hash_files(directory, names, n, buffer, found, target);
}

static int32_t place_file(const tvixb_files_target* target, const char* name) {
  char path[PLACE_SIZE];
  place_of(name, path);
  if (!renameat(target->incoming, name, target->saved, path)) return 0;
  if (errno != ENOENT) return errno;
  const char directory[] = {path[0], path[1], 0};
  if (mkdirat(target->saved, directory, 0777) && errno != EEXIST) return errno;
  return renameat(target->incoming, name, target->saved, path) ? errno : 0;
}

int32_t tvixb_files_place(const tvixb_files_target* target, const char* names,
                          size_t n) {
  for (size_t i = 0; i < n; i++) {
    int32_t status = place_file(target, names + i * NAME_SIZE);
    if (status) return status;
  }
  return 0;
}

int32_t tvixb_files_sync(int file) {
#ifdef __linux__
  return syncfs(file) ? errno : 0;
#else
  (void)file;
  sync();
  return 0;
#endif
}

int32_t tvixb_file_clone(int source, int target) {
#ifdef FICLONE
  return ioctl(target, FICLONE, source) ? errno : 0;
#else
  (void)source, (void)target;
  return EOPNOTSUPP;
#endif
}

#endif  // _WIN32
