// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "mounts.h"

#include <errno.h>

#ifndef __linux__

int32_t tvixb_mounts_make(int user, int mounts, const char* stage,
                          const char* overlay, const uint8_t* kinds,
                          const char* names, size_t n, size_t* failed) {
  (void)user, (void)mounts, (void)stage, (void)overlay;
  (void)kinds, (void)names;
  *failed = n;
  return ENOSYS;
}

#else

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define POINTS "points"  // in the stage: the file system below an overlay

typedef struct inputs {
  const char* stage;
  const char* overlay;
  const uint8_t* kinds;
  const char* names;
  size_t n;
} inputs;

typedef struct result {
  size_t failed;
  int32_t status;
} result;

typedef int32_t input_function(uint8_t kind, const char* path,
                               const char* source);

// Calls a function for all inputs.
static result for_each(const inputs* inputs, input_function* function) {
  const char* path = inputs->names;
  for (size_t i = 0; i < inputs->n; i++) {
    const char* source = path + strlen(path) + 1;
    int32_t status = function(inputs->kinds[i], path, source);
    if (status) return (result){i, status};
    path = source + strlen(source) + 1;
  }
  return (result){inputs->n, 0};
}

static int32_t make_point(uint8_t kind, const char* path, const char* source) {
  if (kind == TVIXB_MOUNT_SYMLINK) return symlink(source, path) ? errno : 0;
  if (kind == TVIXB_MOUNT_DIRECTORY) return mkdir(path, 0755) ? errno : 0;
  int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) return errno;
  return close(file) ? errno : 0;
}

// Makes the mount point in the working directory.
static int32_t make_point_here(uint8_t kind, const char* path,
                               const char* source) {
  return make_point(kind, strrchr(path, '/') + 1, source);
}

// Mounts a source in the working directory.
static int32_t mount_input(uint8_t kind, const char* path, const char* source) {
  if (kind == TVIXB_MOUNT_SYMLINK) return 0;
  return mount(source, path, NULL, MS_BIND, NULL) ? errno : 0;
}

// Makes the mount points of all inputs in a file system in memory, and mounts
// it below the directory `overlay`. The working directory is the stage.
static bool make_overlay(const inputs* inputs) {
  const unsigned long flags = MS_NOSUID | MS_NODEV;
  if (!*inputs->overlay || strpbrk(inputs->overlay, ",:\\")) return false;
  // `volatile`: do not write the whole file system to disk at the end.
  char options[PATH_MAX];
  int size =
      snprintf(options, sizeof options,
               "userxattr,volatile,lowerdir=%s/" POINTS
               ",upperdir=%s/build/root%s,workdir=%s/build/work",
               inputs->stage, inputs->stage, inputs->overlay, inputs->stage);
  return size > 0 && (size_t)size < sizeof options && !mkdir(POINTS, 0755) &&
         !mount("tmpfs", POINTS, "tmpfs", flags, "mode=0755") &&
         !chdir(POINTS) && !for_each(inputs, make_point_here).status &&
         !mount("overlay", inputs->overlay, "overlay", flags, options);
}

// Unmounts and removes a directory in the stage, if it exists.
static bool remove_mount(const char* name) {
  return (!umount2(name, MNT_DETACH) || errno == EINVAL || errno == ENOENT) &&
         (!rmdir(name) || errno == ENOENT);
}

// Removes the mounts in the stage, and makes the root read-only.
static int32_t finish(const inputs* inputs) {
  const unsigned long flags =
      MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV;
  bool done = !chdir(inputs->stage) && remove_mount("castore") &&
              remove_mount("build") && remove_mount(POINTS) &&
              !mount(NULL, "/", NULL, flags, NULL);
  return done ? 0 : errno;
}

// In the child: calls no function that allocates or locks.
static result make_all(int user, int mounts, const inputs* inputs) {
  if (setns(user, CLONE_NEWUSER) || setns(mounts, CLONE_NEWNS) ||
      chdir(inputs->stage))
    return (result){inputs->n, errno};
  result found = {inputs->n, 0};
  if (!make_overlay(inputs)) found = for_each(inputs, make_point);
  if (found.status) return found;
  if (chdir(inputs->stage) || chdir("castore"))
    return (result){inputs->n, errno};
  found = for_each(inputs, mount_input);
  if (!found.status) found.status = finish(inputs);
  return found;
}

// Waits for the child and returns its result.
static result wait_for(pid_t child, int reading) {
  result found;
  ssize_t size;
  do {
    size = read(reading, &found, sizeof found);
  } while (size < 0 && errno == EINTR);
  // __WALL: the end of the child sends no signal.
  while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR) {
  }
  if (size != sizeof found) found = (result){SIZE_MAX, EIO};
  return found;
}

static result make_in_child(int user, int mounts, const inputs* inputs) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC)) return (result){inputs->n, errno};
  // Not fork(): no handlers run, and nobody else can wait for the child.
  pid_t child = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
  if (!child) {
    result found = make_all(user, mounts, inputs);
    _exit(write(ends[1], &found, sizeof found) != sizeof found);
  }
  result found = {inputs->n, child < 0 ? errno : 0};
  close(ends[1]);
  if (child > 0) found = wait_for(child, ends[0]);
  close(ends[0]);
  return found;
}

int32_t tvixb_mounts_make(int user, int mounts, const char* stage,
                          const char* overlay, const uint8_t* kinds,
                          const char* names, size_t n, size_t* failed) {
  const inputs inputs = {stage, overlay, kinds, names, n};
  // The child must not run handlers of this process. In Linux, this is the mask
  // of the thread alone; glibc 2.28 has pthread_sigmask in another library.
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  result found = make_in_child(user, mounts, &inputs);
  sigprocmask(SIG_SETMASK, &before, NULL);
  *failed = found.failed;
  return found.status;
}

#endif  // __linux__
