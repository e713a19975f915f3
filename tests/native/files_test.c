// SPDX-License-Identifier: MIT
//
// Compares the digests of files, with sizes around every limit, with the
// official hasher, and tests saved files and files that cannot be hashed.
#define _GNU_SOURCE
#include "files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blake3.h"

#define PART TVIXB_FILES_PART_SIZE
#define COUNT 400

static uint8_t buffer[TVIXB_FILES_BUFFER_SIZE];
static uint8_t data[TVIXB_FILES_LARGE_SIZE + 1];
static int directory;

static void write_file(const char* name, size_t size, mode_t mode) {
  int file = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC, mode);
  assert(file >= 0 && write(file, data, size) == (ssize_t)size);
  close(file);
}

static void hash_official(size_t size, uint8_t* digest) {
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, data, size);
  blake3_hasher_finalize(&hasher, digest, 32);
}

static size_t size_of(size_t i) {
  const size_t sizes[] = {0,        1,    1024,     70000, PART - 1,    PART,
                          PART + 1, 3000, 2 * PART, 5,     3 * PART + 5};
  return i % 3 ? i * 7 : sizes[i / 3 % (sizeof sizes / sizeof *sizes)];
}

static void check_many(void) {
  static char names[COUNT * 8];
  static int32_t statuses[COUNT];
  static uint64_t sizes[COUNT];
  static uint8_t executable[COUNT], digests[COUNT * 32];
  size_t used = 0;
  for (size_t i = 0; i < COUNT; i++) {
    char* name = names + used;
    used += (size_t)sprintf(name, "%zu", i) + 1;
    if (i % 50 != 49) write_file(name, size_of(i), i % 2 ? 0611 : 0700);
  }
  tvixb_files found = {statuses, sizes, executable, digests};
  tvixb_files_hash(directory, names, COUNT, buffer, &found);
  for (size_t i = 0; i < COUNT; i++) {
    assert(statuses[i] == (i % 50 == 49 ? ENOENT : TVIXB_FILE_OK));
    if (statuses[i]) continue;
    uint8_t expected[32];
    hash_official(size_of(i), expected);
    assert(sizes[i] == size_of(i) && executable[i] == !(i % 2));
    assert(memcmp(digests + 32 * i, expected, 32) == 0);
  }
}

static int32_t status_of(const char* name, uint8_t* digest) {
  int32_t status;
  uint64_t size;
  uint8_t executable;
  tvixb_files found = {&status, &size, &executable, digest};
  tvixb_files_hash(directory, name, 1, buffer, &found);
  return status;
}

static void check_special(void) {
  uint8_t digest[32];
  assert(mkfifoat(directory, "pipe", 0600) == 0);
  assert(symlinkat("0", directory, "link") == 0);
  assert(mkdirat(directory, "directory", 0700) == 0);
  assert(status_of("pipe", digest) == TVIXB_FILE_CHANGED);
  assert(status_of("link", digest) == TVIXB_FILE_CHANGED);
  assert(status_of("directory", digest) == TVIXB_FILE_CHANGED);
  // A file that reports size 0 and is not empty.
  assert(status_of("/proc/self/status", digest) == TVIXB_FILE_CHANGED);
}

static void check_large(void) {
  uint8_t digest[32], expected[32], cvs[65 * 32];
  write_file("large", TVIXB_FILES_LARGE_SIZE, 0600);
  assert(status_of("large", digest) == TVIXB_FILE_OK);
  hash_official(TVIXB_FILES_LARGE_SIZE, expected);
  assert(memcmp(digest, expected, 32) == 0);

  size_t size = TVIXB_FILES_LARGE_SIZE + 1;
  write_file("large", size, 0600);
  assert(status_of("large", digest) == TVIXB_FILE_LARGE);
  int file = openat(directory, "large", O_RDONLY);
  assert(!tvixb_file_hash_parts(file, size, 40, 65, buffer, cvs));
  assert(!tvixb_file_hash_parts(file, size, 0, 40, buffer, cvs));
  tvixb_file_join(cvs, 65, digest);
  hash_official(size, expected);
  assert(memcmp(digest, expected, 32) == 0);
  // Files that are too short and too long.
  for (size_t wrong = size - 1; wrong <= size + 1; wrong += 2) {
    int32_t status = tvixb_file_hash_parts(file, wrong, 63, 64 + (wrong > size),
                                           buffer, cvs);
    assert(status == TVIXB_FILE_CHANGED);
  }
  close(file);
  assert(tvixb_file_hash_parts(file, size, 0, 1, buffer, cvs) == EBADF);
}

// Returns the bytes and the mode of a saved file, and sets its name.
static size_t read_saved(int place, const uint8_t* digest, mode_t* mode,
                         uint8_t* found, char* name) {
  for (size_t i = 0; i < 32; i++) sprintf(name + 2 * i, "%02x", digest[i]);
  int file = openat(place, name, O_RDONLY);
  assert(file >= 0);
  struct stat state;
  assert(!fstat(file, &state) && state.st_mtime == 1);
  *mode = state.st_mode & 07777;
  ssize_t size = read(file, found, PART + 1);
  assert(size >= 0 && !close(file));
  return (size_t)size;
}

static void check_save(void) {
  static char names[COUNT * 8];
  static int32_t statuses[COUNT];
  static uint64_t sizes[COUNT];
  static uint8_t executable[COUNT], digests[COUNT * 32], content[PART + 1];
  assert(!mkdirat(directory, "saved", 0700));
  assert(!mkdirat(directory, "incoming", 0700));
  tvixb_files_target target = {
      openat(directory, "saved", O_RDONLY | O_DIRECTORY),
      openat(directory, "incoming", O_RDONLY | O_DIRECTORY),
  };
  size_t used = 0;
  for (size_t i = 0; i < COUNT; i++)
    used += (size_t)sprintf(names + used, "%zu", i) + 1;
  tvixb_files found = {statuses, sizes, executable, digests};
  tvixb_files_save(directory, names, COUNT, buffer, &found, &target);
  char name[65], path[68];
  for (size_t i = 0; i < COUNT; i++) {
    bool large = size_of(i) > PART;
    int32_t expected = i % 50 == 49 ? ENOENT
                       : large      ? TVIXB_FILE_LARGE
                                    : TVIXB_FILE_OK;
    assert(statuses[i] == expected);
    if (expected) continue;
    mode_t mode;
    const uint8_t* digest = digests + 32 * i;
    size_t size = read_saved(target.incoming, digest, &mode, content, name);
    assert(size == size_of(i) && !memcmp(content, data, size));
    assert(mode == 0444);
  }

  // What is saved is only touched.
  const uint8_t* digest = digests + 32;
  mode_t mode;
  read_saved(target.incoming, digest, &mode, content, name);
  assert(!tvixb_files_place(&target, name, 1));
  assert(tvixb_files_place(&target, name, 1) == ENOENT);
  sprintf(path, "%.2s/%s", name, name + 2);
  assert(!faccessat(target.saved, path, F_OK, 0));
  tvixb_files_save(directory, "1", 1, buffer, &found, &target);
  assert(statuses[0] == TVIXB_FILE_OK && !memcmp(digest, digests, 32));
  assert(faccessat(target.incoming, name, F_OK, 0) && errno == ENOENT);

  // What cannot be saved.
  assert(!renameat(target.saved, path, target.incoming, name));
  assert(!unlinkat(target.incoming, name, 0));
  tvixb_files_target closed = {target.saved, -1};
  tvixb_files_save(directory, "1", 1, buffer, &found, &closed);
  assert(statuses[0] == EBADF + TVIXB_FILE_UNSAVED);
  assert(!tvixb_files_sync(directory) && tvixb_files_sync(-1) == EBADF);
  assert(tvixb_file_clone(-1, target.saved));
  close(target.saved);
  close(target.incoming);
}

int main(void) {
  const char* temporary = getenv("TEST_TMPDIR");
  char path[4096];
  snprintf(path, sizeof path, "%s/files_test.XXXXXX",
           temporary ? temporary : "/tmp");
  assert(mkdtemp(path));
  directory = open(path, O_RDONLY | O_DIRECTORY);
  assert(directory >= 0);
  for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 31 >> 5);
  check_many();
  check_save();
  check_special();
  check_large();
  puts("ok");
  return 0;
}
