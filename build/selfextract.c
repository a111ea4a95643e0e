/* The single-file form: the folder form, packed behind this program.
 *
 *     [this program, static][tar of the folder, zstd][struct trailer]
 *
 * It unpacks the tar into a new folder and becomes the program in it (execve), so that the process somebody
 * started is the gateway itself: signals, exit status, job control and a service manager's main PID need no
 * forwarding. Before that it forks the sweeper, a process that does one thing: it waits for the end of everybody
 * who has the write end of a pipe, which the gateway and its workers inherit, and then removes the folder. That
 * holds after a SIGKILL, too; and if it is the sweeper that is killed, the program removes the folder as it ends
 * (appliance/program.py).
 *
 * Why not PyInstaller's own single file in staticx: it unpacks twice (203 ms to the first output where this takes
 * half of it), is three processes that leave two folders behind a SIGKILL, and has no folder form in it that
 * `portway install` could put on a disk.
 *
 * Nothing here needs /proc, a dynamic loader, or any file but itself: the folder has its own loader and libraries.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#ifndef LOADER
#error "LOADER is the name of the folder's dynamic loader, such as ld-linux-x86-64.so.2"
#endif

#define BLOCK 512 /* of tar (POSIX.1-1988, ustar) */
#define FAILED 1

struct trailer { /* little-endian, as every machine that this is built for */
    uint64_t size; /* of the packed tar, which ends where the trailer begins */
    char magic[8];
};
static const char MAGIC[8] = "PORTWAY1";

static const char *where = "", *why = ""; /* what the first place refused that is there at all, for the message */

/* -- the packed tar ----------------------------------------------------------------------------------------- */

static int fd_in = -1;
static uint64_t packed_left;
static ZSTD_DStream *unpacker;
static char packed[128 << 10], plain[256 << 10];
static ZSTD_inBuffer in = {packed, 0, 0};
static size_t plain_at, plain_end;

static int open_self(void) {
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    return fd >= 0 ? fd : open((const char *)getauxval(AT_EXECFN), O_RDONLY | O_CLOEXEC);
}

static int find_tar(void) {
    struct trailer end;
    fd_in = open_self();
    if (fd_in < 0)
        return -1;
    off_t size = lseek(fd_in, 0, SEEK_END);
    if (pread(fd_in, &end, sizeof end, size - (off_t)sizeof end) != sizeof end)
        return -1;
    if (memcmp(end.magic, MAGIC, sizeof MAGIC) || end.size > (uint64_t)size - sizeof end) {
        errno = ENOEXEC;
        return -1;
    }
    packed_left = end.size;
    return lseek(fd_in, size - (off_t)sizeof end - (off_t)end.size, SEEK_SET) < 0 ? -1 : 0;
}

/* Gives the next `wanted` bytes of the tar, at most as many as are at hand; 0 at its end, -1 when it is broken. */
static ssize_t next(const char **bytes, size_t wanted) {
    while (plain_at == plain_end) {
        if (in.pos == in.size) {
            size_t most = packed_left < sizeof packed ? (size_t)packed_left : sizeof packed;
            ssize_t got = most ? read(fd_in, packed, most) : 0;
            if (got <= 0)
                return got;
            packed_left -= (uint64_t)got;
            in.size = (size_t)got;
            in.pos = 0;
        }
        ZSTD_outBuffer out = {plain, sizeof plain, 0};
        if (ZSTD_isError(ZSTD_decompressStream(unpacker, &out, &in))) {
            errno = EBADMSG;
            return -1;
        }
        plain_at = 0;
        plain_end = out.pos;
    }
    size_t here = plain_end - plain_at < wanted ? plain_end - plain_at : wanted;
    *bytes = plain + plain_at;
    plain_at += here;
    return (ssize_t)here;
}

static int copy(int fd, uint64_t size) { /* to a file, or to nowhere */
    while (size) {
        const char *bytes;
        ssize_t got = next(&bytes, size < sizeof plain ? (size_t)size : sizeof plain);
        if (got <= 0) {
            errno = got ? errno : EBADMSG;
            return -1;
        }
        for (ssize_t done = 0; fd >= 0 && done < got;) {
            ssize_t wrote = write(fd, bytes + done, (size_t)(got - done));
            if (wrote < 0)
                return -1;
            done += wrote;
        }
        size -= (uint64_t)got;
    }
    return 0;
}

static int header(char block[BLOCK]) { /* 1: there is one, 0: the tar is over */
    for (size_t have = 0; have < BLOCK;) {
        const char *bytes;
        ssize_t got = next(&bytes, BLOCK - have);
        if (got <= 0)
            return (int)got;
        memcpy(block + have, bytes, (size_t)got);
        have += (size_t)got;
    }
    return block[0] != 0;
}

static int unpack_file(int folder, const char *name, mode_t mode, uint64_t size) {
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return -1;
    int failed = copy(fd, size);
    return close(fd) || failed ? -1 : copy(-1, -size % BLOCK);
}

static int unpack(int folder) {
    char block[BLOCK], name[257];
    int more;
    while ((more = header(block)) > 0) {
        mode_t mode = (mode_t)strtoul(block + 100, NULL, 8) & 0755;
        uint64_t size = strtoull(block + 124, NULL, 8);
        snprintf(name, sizeof name, "%.155s%s%.100s", block + 345, block[345] ? "/" : "", block);
        if (block[156] == '5' ? mkdirat(folder, name, 0755) : unpack_file(folder, name, mode, size))
            return -1;
    }
    return more;
}

/* -- the sweeper -------------------------------------------------------------------------------------------- */

static int sweep_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    remove(path);
    return 0; /* the rest all the same */
}

static void close_all_but(int fd) {
    dup2(fd, 0);
    if (syscall(SYS_close_range, 1, ~0U, 0) == 0) /* Linux 5.9 */
        return;
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    for (int other = 1; other < (int)(most.rlim_cur < 65536 ? most.rlim_cur : 65536); other++)
        close(other);
}

/* Returns the write end of the pipe that keeps the folder alive, or -1. */
static int start_sweeper(const char *folder) {
    int ends[2];
    if (pipe(ends))
        return -1;
    pid_t sweeper = fork();
    if (sweeper < 0)
        return -1;
    if (sweeper) {
        int lifeline = fcntl(ends[1], F_DUPFD, 3); /* or, where they are closed, it would be somebody's stdout */
        close(ends[0]);
        close(ends[1]);
        return lifeline;
    }
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    setsid(); /* or a signal to the group would end it first */
    prctl(PR_SET_NAME, "portway-sweeper");
    close_all_but(ends[0]);
    if (chdir("/")) /* a file system must not be busy because of it */
        _exit(FAILED);
    char byte;
    while (read(0, &byte, 1) > 0 || errno == EINTR)
        errno = 0;
    nftw(folder, sweep_one, 16, FTW_DEPTH | FTW_PHYS);
    _exit(0);
}

/* -- the places --------------------------------------------------------------------------------------------- */

static int is_fit(const char *place) { /* to be written to, and for programs to run from */
    struct statvfs fs;
    if (access(place, W_OK | X_OK) || statvfs(place, &fs))
        return 0;
    errno = EACCES;
    return !(fs.f_flag & ST_NOEXEC);
}

/* Writes the name of a folder that nobody has or guesses: mkdtemp(3) would make it before there is a sweeper. */
static int name_folder(const char *place, char folder[PATH_MAX]) {
    char absolute[PATH_MAX];
    uint64_t number;
    if (!realpath(place, absolute) || !is_fit(absolute))
        return -1;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        return -1;
    int length = snprintf(folder, PATH_MAX, "%s/portway-%016" PRIx64, absolute[1] ? absolute : "", number);
    errno = ENAMETOOLONG;
    return length < PATH_MAX ? 0 : -1;
}

static int unpack_into(const char *folder) {
    if (mkdir(folder, 0700))
        return -1;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    unpacker = ZSTD_createDStream();
    plain_at = plain_end = in.pos = in.size = 0;
    int failed = !unpacker || find_tar() || unpack(fd);
    int reason = errno;
    /* Inherited like the lifeline: systemd-tmpfiles takes nothing, however old, out of a folder that somebody has
     * locked (tmpfiles.d(5)). */
    int lock = failed ? -1 : fcntl(fd, F_DUPFD, 3);
    if (lock >= 0)
        flock(lock, LOCK_SH);
    ZSTD_freeDStream(unpacker);
    close(fd);
    close(fd_in);
    errno = reason;
    return failed ? -1 : 0;
}

/* Unpacks into a new folder in `place`, whose name comes into `folder`; gives the pipe, or -1. */
static int unpack_in(const char *place, char folder[PATH_MAX]) {
    int lifeline = name_folder(place, folder) ? -1 : start_sweeper(folder);
    if (lifeline < 0 || !unpack_into(folder))
        return lifeline;
    int reason = errno;
    close(lifeline); /* the sweeper clears up */
    wait(NULL);
    errno = reason;
    return -1;
}

static int unpack_somewhere(char folder[PATH_MAX]) {
    char runtime[64];
    snprintf(runtime, sizeof runtime, "/run/user/%u", (unsigned)getuid());
    const char *places[] = {getenv("TMPDIR"), "/tmp", "/var/tmp", runtime, "/dev/shm", "/run", "."};
    int reason = ENOENT;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (!places[i] || !*places[i])
            continue;
        int lifeline = unpack_in(places[i], folder);
        if (lifeline >= 0)
            return lifeline;
        if (reason == ENOENT) {
            where = places[i];
            reason = errno;
        }
    }
    why = strerror(reason);
    return -1;
}

static char *in_folder(const char *folder, const char *name) {
    char *path;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static int become(const char *folder, int lifeline, int count, char **words) {
    char *loader = in_folder(folder, "lib/" LOADER), *program = in_folder(folder, "app/portway"), *number;
    where = folder;
    char *first[] = {loader, "--library-path", in_folder(folder, "app/_internal"), "--argv0", program, program};
    char **command = calloc((size_t)count + sizeof first / sizeof *first, sizeof *command);
    memcpy(command, first, sizeof first);
    for (int i = 1; i < count; i++)
        command[5 + i] = words[i];
    if (asprintf(&number, "%ld:%d", (long)getpid(), lifeline) > 0) {
        setenv("PORTWAY_UNPACKED", folder, 1);
        setenv("PORTWAY_LIFELINE", number, 1);
        /* As the folder form's launcher does (freeze.py). */
        setenv("_PYI_ARCHIVE_FILE", program, 1);
        setenv("_PYI_PARENT_PROCESS_LEVEL", "-1", 1);
        setenv("_PYI_LINUX_PROCESS_NAME", "portway", 1);
        execv(loader, command);
    }
    why = strerror(errno);
    close(lifeline);
    wait(NULL);
    return FAILED;
}

int main(int count, char **words) {
    char folder[PATH_MAX];
    int lifeline = unpack_somewhere(folder);
    int status = lifeline < 0 ? FAILED : become(folder, lifeline, count, words);
    fprintf(stderr,
            "portway: cannot unpack itself into %s: %s\n"
            "  hint: name a folder with 32 MB of room from which programs may run: TMPDIR=/some/folder portway ...; "
            "or use the folder form (portway-*.tar.gz)\n",
            where, why);
    return status;
}
