/* System calls that go wrong on demand, put before the C library's by LD_PRELOAD: see crashes.py.
 *
 * While armed, the calls of one thread are counted, and the one at `place` meets what `how` says. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { ONCE, FROM_HERE_ON, DONE_AND_REFUSED, SHORT, SIGNAL_BEFORE, SIGNAL_AFTER };

static int armed, place, number, how, count;
static pthread_t who;
static char names[100000];

void arm(int at, int what, int in_which_way) {
    place = at, number = what, how = in_which_way, count = 0, who = pthread_self();
    names[0] = 0;
    armed = 1;
}

const char *disarm(void) {
    armed = 0;
    return names;
}

/* Count a call; return -1 to refuse it (errno is set), 1 to refuse it once it is done, 2 to do half of it. */
static int meet(const char *name) {
    if (!armed || !pthread_equal(who, pthread_self())) return 0;
    int here = count++;
    if (strlen(names) + strlen(name) + 2 < sizeof names) strcat(strcat(names, name), " ");
    if (here != place && !(how == FROM_HERE_ON && here > place && place >= 0)) return 0;
    if (how == SIGNAL_BEFORE) { raise(number); return 0; }
    if (how == SHORT) return 2;
    if (how == DONE_AND_REFUSED) return 1;
    if (how == SIGNAL_AFTER) return 3;
    errno = number;
    return -1;
}

#define REAL(name) ((__typeof__(&name))real)
#define CALL(type, name, shown, failed, parameters, ...)                  \
    type name parameters {                                                \
        static void *real;                                                \
        if (!real) real = dlsym(RTLD_NEXT, #name);                        \
        int met = meet(shown);                                            \
        if (met == -1) {                                                  \
            if (!strcmp(shown, "close")) { int kept = errno; REAL(name)(__VA_ARGS__); errno = kept; } \
            return failed;                                                \
        }                                                                 \
        type result = REAL(name)(__VA_ARGS__);                            \
        if (met == 1) { errno = number; return failed; }                  \
        if (met == 3) { int kept = errno; raise(number); errno = kept; }  \
        return result;                                                    \
    }

CALL(int, fsync, "fsync", -1, (int fd), fd)
CALL(int, fchmod, "fchmod", -1, (int fd, mode_t mode), fd, mode)
CALL(int, fchown, "fchown", -1, (int fd, uid_t user, gid_t group), fd, user, group)
CALL(int, flock, "flock", -1, (int fd, int operation), fd, operation)
CALL(int, rename, "rename", -1, (const char *from, const char *to), from, to)
CALL(int, close, "close", -1, (int fd), fd)
CALL(int, unlink, "unlink", -1, (const char *path), path)
CALL(DIR *, opendir, "scandir", NULL, (const char *path), path)
CALL(int, stat64, "stat", -1, (const char *path, struct stat64 *found), path, found)
CALL(int, lstat64, "lstat", -1, (const char *path, struct stat64 *found), path, found)
CALL(int, fstat64, "fstat", -1, (int fd, struct stat64 *found), fd, found)
CALL(int, fstatat64, "fstatat", -1, (int fd, const char *path, struct stat64 *found, int flags), fd, path, found, flags)
CALL(ssize_t, readlink, "readlink", -1, (const char *path, char *to, size_t size), path, to, size)
CALL(off64_t, lseek64, "lseek", -1, (int fd, off64_t offset, int whence), fd, offset, whence)
CALL(ssize_t, getxattr, "getxattr", -1, (const char *p, const char *n, void *v, size_t size), p, n, v, size)
CALL(int, fremovexattr, "removexattr", -1, (int fd, const char *name), fd, name)

struct dirent64 *readdir64(DIR *folder) {
    static void *real;
    if (!real) real = dlsym(RTLD_NEXT, "readdir64");
    return meet("readdir") == -1 ? NULL : REAL(readdir64)(folder);
}

int open64(const char *path, int flags, ...) {
    static void *real;
    if (!real) real = dlsym(RTLD_NEXT, "open64");
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    int met = meet(flags & O_CREAT ? "create" : "open");
    if (met == -1) return -1;
    int result = REAL(open64)(path, flags, mode);
    if (met == 3) raise(number);
    return result;
}

ssize_t write(int fd, const void *data, size_t size) {
    static void *real;
    if (!real) real = dlsym(RTLD_NEXT, "write");
    int met = meet("write");
    if (met == -1) return -1;
    ssize_t result = REAL(write)(fd, data, met == 2 && size > 1 ? size / 2 : size);
    if (met == 3) raise(number);
    return result;
}
