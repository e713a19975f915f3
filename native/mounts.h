// SPDX-License-Identifier: MIT
//
// Mounts the inputs of a build in a running sandbox. The core does not depend
// on this file.
//
// The rules of tvix_build.h for NULL, alignment, aliasing and retention apply
// here too. All functions may be called by several threads at the same time.
#ifndef TVIXB_MOUNTS_H
#define TVIXB_MOUNTS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: begin */

// The kinds of inputs.
#define TVIXB_MOUNT_DIRECTORY 0
#define TVIXB_MOUNT_FILE 1
#define TVIXB_MOUNT_SYMLINK 2

// Mounts n inputs in the namespaces of a sandbox, after making their mount
// points and symbolic links, unmounts all in `stage`, and makes the root
// read-only. A child process does this, because a process with threads cannot
// enter a user namespace.
//
//   user, mounts  descriptors of the user namespace and the mount namespace
//   stage         a directory in the sandbox with two mounts: `castore`, which
//                 has the sources, and `build`, which has the directories
//                 `root` and `work`
//   overlay       the directory of all inputs, if its files are those below
//                 build/root. The mount points are then in memory, below these
//                 files, if an overlay file system can be mounted. If not, or
//                 if `overlay` is "", they are in the directory itself.
//   kinds         n bytes
//   names         2 n strings with NUL after each: the path of each input in
//                 the sandbox, and its source, the target of a symbolic link
//   failed        set to the index of the input that caused an error, or n
//
// Returns 0 or an errno: ENOSYS where there are no such namespaces.
int32_t tvixb_mounts_make(int user, int mounts, const char* stage,
                          const char* overlay, const uint8_t* kinds,
                          const char* names, size_t n, size_t* failed);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif  // TVIXB_MOUNTS_H
