/*
 * libnfslock.so: QEMU and libvirt go on without a file lock where the filesystem has none, and say so.
 *
 * /etc/ld.so.preload loads it into every program of a container. In all but those listed here it only hands fcntl() on.
 * It opens no file and starts nothing; it calls the C library's own fcntl, and of the kernel fstat, readlinkat and write.
 *
 * Four errors can only mean "there are no locks here": ENOLCK, EOPNOTSUPP, EINVAL, ENOSYS. They are answered as if the lock
 * were granted. Not EAGAIN, EACCES (somebody holds it), EIO, ESTALE, ETIMEDOUT (it may be held or not), EBADF, EDEADLK, EROFS
 * (real errors). The kernel is asked at every call: a lock that can be had is taken, and one that somebody holds is respected.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Where it works: programs that lock images, by name or, with an asterisk, by how that begins. */
static const char *const tools[] = {"qemu-img", "qemu-io", "qemu-nbd", "qemu-storage-daemon", 0};
static const char *const servers[] = {"qemu-system-*", "qemu-kvm", "libvirtd", "virtqemud", 0};
/* A server's stderr is a log. A tool's may be a pipe, whose reader takes any word for a failure, as Glance does: unless the
   environment has this variable, the tools warn in files and terminals only. */
static const char *const warn_always[] = {"NFSLOCK_WARN=*", 0};

#define IS_OFD(cmd) ((cmd) >= F_OFD_GETLK && (cmd) <= F_OFD_SETLKW)
#define IS_GET(cmd) ((cmd) == F_GETLK || (cmd) == F_OFD_GETLK)
#define IS_LOCK(cmd) (IS_OFD(cmd) || (cmd) == F_GETLK || (cmd) == F_SETLK || (cmd) == F_SETLKW)

/* The C library's. Weak: a program without them starts all the same. */
extern int __fcntl(int fd, int cmd, ...) __attribute__((weak));
extern int *__errno_location(void) __attribute__((weak));
extern unsigned long getauxval(unsigned long type) __attribute__((weak));

static int active, always; /* set once, before main() */
static char path_of_program[256], *program = path_of_program;
static unsigned long refused[64]; /* the last files without locks */
static unsigned int refusals;

static long call(long number, long a, long b, long c, long d)
{
#if defined __x86_64__
    register long r10 asm("r10") = d;
    asm volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return number;
#elif defined __aarch64__
    register long x8 asm("x8") = number, x0 asm("x0") = a, x1 asm("x1") = b, x2 asm("x2") = c, x3 asm("x3") = d;
    asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
#endif
}

static int matches(const char *text, const char *const *patterns)
{
    for (; *patterns; patterns++) {
        const char *want = *patterns, *have = text;
        for (; *want && *want == *have; want++, have++);
        if (*want == '*' || *want == *have)
            return 1;
    }
    return 0;
}

/* The dynamic linker calls it before main(), with what main() gets. */
static __attribute__((constructor)) void begin(int argc, char **argv, char **environment)
{
    (void)argc, (void)argv;
    if (!__fcntl || !getauxval || getauxval(AT_SECURE)) /* another C library; a setuid program */
        return;
    call(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)path_of_program, sizeof path_of_program - 1);
    for (char *p = path_of_program; *p; p++)
        if (*p == '/')
            program = p + 1;
    always = matches(program, servers);
    active = always || matches(program, tools);
    for (; *environment; environment++)
        always |= matches(*environment, warn_always);
}

static void warn(int fd, int error)
{
    char text[1024], link[32] = "/proc/self/fd/", path[512], *to = link + 14;
    struct stat st;
    /* Where the program was started without a stderr, 2 may be the image. */
    if (fd == 2 || (!always && (call(SYS_fstat, 2, (long)&st, 0, 0) || !(S_ISREG(st.st_mode) || S_ISCHR(st.st_mode)))))
        return;
    for (int power = 1000000000; power; power /= 10)
        if (power <= fd || power == 1)
            *to++ = (char)('0' + fd / power % 10);
    long length = call(SYS_readlinkat, AT_FDCWD, (long)link, (long)path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    const char *parts[] = {program, ": warning: ", *path ? path : link, ": image locks are refused here (",
                           error == ENOLCK ? "No locks available" : error == EINVAL ? "Invalid argument" :
                           error == ENOSYS ? "Function not implemented" : "Operation not supported",
                           "); going on WITHOUT a lock, nothing keeps a second writer out"};
    to = text;
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) /* 255 + 511 bytes at most, and 150 of ours */
        for (const char *c = parts[i]; *c; c++) /* a file's name rules no terminal and forges no line of a log */
            *to++ = *c >= ' ' && *c < 127 ? *c : '?';
    *to++ = '\n';
    call(SYS_write, 2, (long)text, to - text, 0);
}

/* Whether a file was refused a lock before. Without a lock of its own: a fork cannot find it taken. */
static int was_refused(const struct stat *st, int note)
{
    unsigned long file = (unsigned long)st->st_ino * 0x9e3779b97f4a7c15UL ^ (unsigned long)st->st_dev;
    for (unsigned i = 0; i < 64; i++)
        if (__atomic_load_n(&refused[i], __ATOMIC_RELAXED) == file)
            return 1;
    if (note) /* two threads at once may both do so, and both warn */
        __atomic_store_n(&refused[__atomic_fetch_add(&refusals, 1, __ATOMIC_RELAXED) % 64], file, __ATOMIC_RELAXED);
    return 0;
}

static int is_refusal(int error, int cmd, const struct flock *lock)
{
    if (error != EINVAL)
        return error == ENOLCK || error == EOPNOTSUPP || error == ENOSYS;
    /* EINVAL is one only if nothing is wrong with what was asked. */
    return lock->l_whence == SEEK_SET && lock->l_start >= 0 && lock->l_len >= 0 && (!IS_OFD(cmd) || lock->l_pid == 0) &&
           (lock->l_type == F_RDLCK || lock->l_type == F_WRLCK || (lock->l_type == F_UNLCK && !IS_GET(cmd)));
}

__attribute__((visibility("default"))) int fcntl(int fd, int cmd, ...)
{
    va_list more;
    va_start(more, cmd);
    struct flock *lock = va_arg(more, void *);
    va_end(more);
    if (!__fcntl) { /* another C library */
        long result = call(SYS_fcntl, fd, cmd, (long)lock, 0);
        return result < 0 ? (*__errno_location() = (int)-result, -1) : (int)result;
    }
    struct stat st;
    int before = *__errno_location(), result = __fcntl(fd, cmd, lock), error = *__errno_location();
    if (result != -1 || !active || !IS_LOCK(cmd) || !is_refusal(error, cmd, lock))
        return result;
    /* On /dev/null QEMU asks what the kernel can do. Where a lock may be held, that it cannot be given back is an error. */
    if (call(SYS_fstat, fd, (long)&st, 0, 0) || S_ISCHR(st.st_mode) || (lock->l_type == F_UNLCK && !was_refused(&st, 0)))
        return result;
    if (lock->l_type != F_UNLCK && !was_refused(&st, 1))
        warn(fd, error);
    if (IS_GET(cmd))
        lock->l_type = F_UNLCK; /* nobody is known to hold it */
    *__errno_location() = before;
    return 0;
}

int fcntl64(int fd, int cmd, ...) __attribute__((alias("fcntl"), visibility("default")));
