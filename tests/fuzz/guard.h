// SPDX-License-Identifier: MIT
//
// Copies an input to the end or the beginning of memory between two pages that
// cannot be read.
#ifndef TVIXB_FUZZ_GUARD_H
#define TVIXB_FUZZ_GUARD_H

#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define GUARD_PAGE ((size_t)4096)
#define GUARD_ROOM ((size_t)1 << 20)  // maximum size of an input in bytes

// Returns GUARD_ROOM bytes between two pages that cannot be accessed.
static inline uint8_t* guard_room(void) {
  static uint8_t* room;
  if (!room) {
    uint8_t* pages =
        mmap(NULL, GUARD_ROOM + 2 * GUARD_PAGE, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(pages != MAP_FAILED);
    assert(!mprotect(pages, GUARD_PAGE, PROT_NONE));
    assert(!mprotect(pages + GUARD_PAGE + GUARD_ROOM, GUARD_PAGE, PROT_NONE));
    room = pages + GUARD_PAGE;
  }
  return room;
}

static inline const uint8_t* guard_end(const uint8_t* data, size_t size) {
  assert(size <= GUARD_ROOM);
  uint8_t* place = guard_room() + GUARD_ROOM - size;
  if (size) memcpy(place, data, size);
  return place;
}

static inline const uint8_t* guard_begin(const uint8_t* data, size_t size) {
  assert(size <= GUARD_ROOM);
  if (size) memcpy(guard_room(), data, size);
  return guard_room();
}

#endif  // TVIXB_FUZZ_GUARD_H
