/*
 * calls: makes the calls that it is told, through the C library, as QEMU does, and prints what each answered. Tests run it under other
 * names, with the library and without. A line of standard input is one call; `/` ends a child's or a thread's part:
 *
 *	refuse LOW HIGH CMD ERRNO         the kernel refuses fcntl(fd, CMD) for LOW <= fd <= HIGH, from now on
 *	hold PATH START LEN               another process takes a write lock, and keeps it
 *	open FD PATH FLAGS | dup FROM FD | close FD
 *	lock FD CMD TYPE WHENCE START LEN PID, lock64 …
 *	int FD CMD NUMBER | null FD CMD | bad FD CMD
 *	fork … / | vfork FD | threads N FD | cancel FD | exec PROGRAM SCRIPT
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNTOUCHED 4242
/* glibc's own second name; its header has it only where off_t can be smaller. */
extern int fcntl64(int fd, int cmd, ...);

static void die(const char *what)
{
    fprintf(stderr, "calls: cannot %s: %s\n", what, strerror(errno));
    exit(1);
}

static void refuse(unsigned low, unsigned high, unsigned cmd, unsigned error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 6),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, cmd, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, low, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, high, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        die("have the kernel refuse calls");
}

static void hold(const char *path, long start, long len)
{
    int ready[2];
    if (pipe(ready))
        die("make a pipe");
    fflush(stdout);
    pid_t parent = getpid();
    if (fork() == 0) {
        int fd = open(path, O_RDWR);
        struct flock l = {.l_type = F_WRLCK, .l_start = start, .l_len = len};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || fd < 0 || fcntl(fd, F_OFD_SETLK, &l) || write(ready[1], "", 1) != 1)
            die("hold a lock");
        for (;;)
            pause();
    }
    char byte;
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        die("have a lock held");
    close(ready[0]);
}

static void interrupt(int signal) { (void)signal; }

/* Who waits for a lock that is held would wait for ever: a signal ends that. */
static void timer(int milliseconds)
{
    struct itimerval t = {{0, milliseconds * 1000}, {0, milliseconds * 1000}};
    setitimer(ITIMER_REAL, &t, 0);
}

static void print(int result)
{
    if (result == -1)
        printf("-1 error %d", errno);
    else
        printf("%d%s", result, errno == UNTOUCHED ? "" : " errno changed");
}

static void lock(int (*call)(int, int, ...), int fd, int cmd, int type, int whence, long start, long len, int pid)
{
    struct flock l = {.l_type = (short)type, .l_whence = (short)whence, .l_start = start, .l_len = len, .l_pid = pid};
    if (cmd == F_SETLKW || cmd == F_OFD_SETLKW)
        timer(5);
    errno = UNTOUCHED;
    int result = call(fd, cmd, &l);
    int error = errno;
    timer(0);
    errno = error;
    print(result);
    printf(" %d %d %ld %ld %s\n", l.l_type, l.l_whence, l.l_start, l.l_len, l.l_pid == pid ? "same" : l.l_pid == -1 ? "-1" : "other");
}

static int fd_of_threads;

static void *many(void *unused)
{
    (void)unused;
    long granted = 0;
    for (int i = 0; i < 1000; i++) {
        struct flock l = {.l_type = i % 2 ? F_UNLCK : F_WRLCK, .l_start = i, .l_len = 1};
        granted += fcntl(fd_of_threads, F_OFD_SETLK, &l) == 0;
    }
    return (void *)granted;
}

static void *waiting(void *unused)
{
    (void)unused;
    struct flock l = {.l_type = F_WRLCK, .l_len = 1};
    return (void *)(long)fcntl(fd_of_threads, F_SETLKW, &l);
}

static void threads(int n)
{
    pthread_t all[64];
    long granted = 0;
    for (int i = 0; i < n; i++)
        pthread_create(&all[i], 0, many, 0);
    for (int i = 0; i < n; i++) {
        void *some;
        pthread_join(all[i], &some);
        granted += (long)some;
    }
    printf("%ld granted\n", granted);
}

static void cancel(void)
{
    pthread_t one;
    void *result;
    pthread_create(&one, 0, waiting, 0);
    usleep(50000);
    pthread_cancel(one);
    pthread_join(one, &result);
    printf(result == PTHREAD_CANCELED ? "cancelled\n" : "%ld\n", (long)result);
}

int main(void)
{
    static char script[1 << 22];
    size_t length = 0, n;
    while ((n = fread(script + length, 1, sizeof script - 1 - length, stdin)) > 0)
        length += n;
    struct sigaction act = {.sa_handler = interrupt};
    sigaction(SIGALRM, &act, 0);
    signal(SIGIO, SIG_IGN);
    signal(SIGURG, SIG_IGN);

    pid_t child = 0;
    int in_child = 0;
    for (char *next, *line = strtok_r(script, "\n", &next); line; line = strtok_r(0, "\n", &next)) {
        char word[32] = "", path[256] = "", other[256] = "";
        int fd = 0, cmd = 0, type = 0, whence = 0, pid = 0;
        long start = 0, len = 0;
        unsigned low = 0, high = 0;
        sscanf(line, "%31s", word);
        if (child > 0) { /* the child's part */
            if (!strcmp(word, "/")) {
                int status;
                waitpid(child, &status, 0);
                if (status != 0)
                    printf("the child ended with %d\n", status);
                child = 0;
            }
            continue;
        }
        if (!strcmp(word, "/") && in_child) {
            fflush(stdout);
            _exit(0);
        } else if (sscanf(line, "refuse %u %u %d %d", &low, &high, &cmd, &type) == 4) {
            refuse(low, high, (unsigned)cmd, (unsigned)type);
        } else if (sscanf(line, "hold %255s %ld %ld", path, &start, &len) == 3) {
            hold(path, start, len);
        } else if (sscanf(line, "open %d %255s %d", &fd, path, &cmd) == 3) {
            int opened = open(path, cmd, 0600);
            if (opened < 0 || (opened != fd && (dup2(opened, fd) < 0 || close(opened))))
                die(line);
        } else if (sscanf(line, "dup %d %d", &cmd, &fd) == 2) {
            if (dup2(cmd, fd) < 0)
                die(line);
        } else if (sscanf(line, "close %d", &fd) == 1) {
            close(fd);
        } else if (sscanf(line, "exec %255s %255s", path, other) == 2) {
            fflush(stdout);
            if (!freopen(other, "r", stdin) || execl(path, path, (char *)0))
                die(line);
        } else if (!strcmp(word, "lock") && sscanf(line, "lock %d %d %d %d %ld %ld %d", &fd, &cmd, &type, &whence, &start, &len, &pid) == 7) {
            lock(fcntl, fd, cmd, type, whence, start, len, pid);
        } else if (sscanf(line, "lock64 %d %d %d %d %ld %ld %d", &fd, &cmd, &type, &whence, &start, &len, &pid) == 7) {
            lock(fcntl64, fd, cmd, type, whence, start, len, pid);
        } else if (sscanf(line, "int %d %d %ld", &fd, &cmd, &len) == 3) {
            errno = UNTOUCHED;
            print(fcntl(fd, cmd, len));
            printf("\n");
        } else if (sscanf(line, "null %d %d", &fd, &cmd) == 2) {
            errno = UNTOUCHED;
            print(fcntl(fd, cmd, 0));
            printf("\n");
        } else if (sscanf(line, "bad %d %d", &fd, &cmd) == 2) {
            errno = UNTOUCHED;
            print(fcntl(fd, cmd, (void *)8));
            printf("\n");
        } else if (!strcmp(word, "fork")) {
            fflush(stdout);
            child = fork();
            in_child |= child == 0;
        } else if (sscanf(line, "vfork %d", &fd) == 1) {
            struct flock l = {.l_type = F_WRLCK, .l_len = 1};
            int status;
            pid_t p = vfork();
            if (p == 0)
                _exit(fcntl(fd, F_OFD_SETLK, &l) == 0 ? 0 : 1);
            waitpid(p, &status, 0);
            printf("%d\n", status);
        } else if (sscanf(line, "threads %d %d", &cmd, &fd_of_threads) == 2) {
            threads(cmd);
        } else if (sscanf(line, "cancel %d", &fd_of_threads) == 1) {
            cancel();
        } else {
            errno = 0;
            die(line);
        }
    }
    return 0;
}
