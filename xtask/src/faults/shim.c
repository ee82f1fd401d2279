/* Loaded before the C library (LD_PRELOAD): makes reading, writing, opening and the clock go wrong for files whose path contains
 * FAULT_PATH, from the FAULT_AFTER-th call on, in the way that FAULT_KIND names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static const char *kind = "";
static const char *part = "";
static long after, calls;

__attribute__((constructor)) static void begin(void) {
  if (getenv("FAULT_KIND")) kind = getenv("FAULT_KIND");
  if (getenv("FAULT_PATH")) part = getenv("FAULT_PATH");
  if (getenv("FAULT_AFTER")) after = atol(getenv("FAULT_AFTER"));
}

static int is(const char *name) { return strcmp(kind, name) == 0; }

static int concerns(const char *path) {
  return *part && strstr(path, part) && __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED) >= after;
}

static int concerns_descriptor(int descriptor) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return concerns(path);
}

static int fail(int error) {
  errno = error;
  return -1;
}

#define REAL(type, name, ...)                                  \
  static type (*real)(__VA_ARGS__);                            \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* The error of a write, 0 for none. */
static int write_error(int descriptor, size_t *count) {
  if (!(is("no-space") || is("write-error") || is("short-writes") || is("slow"))) return 0;
  if (!concerns_descriptor(descriptor)) return 0;
  if (is("slow")) usleep(3000);
  if (is("short-writes") && *count > 1) *count = *count / 2;
  return is("no-space") ? ENOSPC : is("write-error") ? EIO : 0;
}

static int read_error(int descriptor, size_t *count) {
  if (!(is("read-error") || is("short-reads") || is("slow"))) return 0;
  if (!concerns_descriptor(descriptor)) return 0;
  if (is("slow")) usleep(3000);
  if (is("short-reads") && *count > 7) *count = (*count / 2) | 1;
  return is("read-error") ? EIO : 0;
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
  REAL(ssize_t, "write", int, const void *, size_t);
  int error = write_error(descriptor, &count);
  return error ? fail(error) : real(descriptor, bytes, count);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off_t at) {
  REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
  int error = write_error(descriptor, &count);
  return error ? fail(error) : real(descriptor, bytes, count, at);
}

ssize_t read(int descriptor, void *bytes, size_t count) {
  REAL(ssize_t, "read", int, void *, size_t);
  int error = read_error(descriptor, &count);
  return error ? fail(error) : real(descriptor, bytes, count);
}

ssize_t pread64(int descriptor, void *bytes, size_t count, off_t at) {
  REAL(ssize_t, "pread64", int, void *, size_t, off_t);
  int error = read_error(descriptor, &count);
  return error ? fail(error) : real(descriptor, bytes, count, at);
}

static int open_error(const char *path) {
  if (is("no-access") && concerns(path)) return EACCES;
  if (is("vanished") && concerns(path)) return ENOENT;
  return 0;
}

int open64(const char *path, int flags, ...) {
  REAL(int, "open64", const char *, int, ...);
  va_list more;
  va_start(more, flags);
  int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;
  va_end(more);
  int error = open_error(path);
  return error ? fail(error) : real(path, flags, mode);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  REAL(int, "clock_gettime", clockid_t, struct timespec *);
  int done = real(clock, time);
  /* A day back at every call. */
  if (done == 0 && clock == CLOCK_REALTIME && is("clock"))
    time->tv_sec -= 86400 * (1 + __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED));
  return done;
}
