"""Keeps rpcbind and rpc.statd running: the first process of the container that rpcbind_ensure makes.

usage: supervise.py [--statd] [ADDRESS ...]    without an address port 111 of every one
       supervise.py --ready [--statd]          waits until they answer and the reboot notification has been sent, a while at the longest

rpcbind gets its sockets from here as it gets them from systemd (sd_listen_fds(3)): its own -h restricts UDP only, and
without /etc/services, which container images may lack, it opens no port at all.
"""
import errno
import fcntl
import os
import pwd
import signal
import socket
import struct
import sys
import time

FIRST = 3  # SD_LISTEN_FDS_START
IP_FREEBIND = 15  # linux/in.h, of IPv6 sockets too: at boot the addresses may come later
SOCKET = "/run/rpcbind.sock"
MARK = "/run/sm-notify.pid"  # sm-notify(8) does nothing while it exists; /run is the host's, and empty after a boot
VOLUMES = "/proc/fs/nfsfs/volumes"  # what is mounted over this network namespace, the host's, in whatever mount namespace
SERVER = "/proc/net/rpc/nfsd"
RUNNING = {}  # pid: name


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def port_111(addresses):
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
            try:
                s = socket.socket(family, kind)
            except OSError:
                if address != "::":  # a host without IPv6
                    raise
                continue
            if kind == socket.SOCK_STREAM:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            s.bind((address, 111))
            if kind == socket.SOCK_STREAM:
                s.listen()
            yield s


def listeners(addresses):
    # The port first: who has it may be the host's rpcbind, whose socket file is then not ours to replace.
    try:
        ports = list(port_111(addresses))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        sys.exit("cannot start rpcbind: port 111 is taken; see on the host: ss -lntup 'sport = 111'")
    try:
        os.unlink(SOCKET)
    except FileNotFoundError:
        pass
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    local.bind(SOCKET)
    os.chmod(SOCKET, 0o666)
    local.listen()
    return [local] + ports


def in_use():
    """Whose locks the servers would drop if they were told of a reboot now; empty if nobody's.

    In doubt somebody's: a notification too much harms guests that run, one too few leaves old locks on the servers. The list does not tell
    which volumes are mounted with nolock, so those count, too. A file that is not there means a kernel without that part of NFS.
    """
    try:
        with open(VOLUMES) as lines:
            volumes = [line.split() for line in lines if line.startswith(("v2 ", "v3 "))]
    except FileNotFoundError:
        volumes = []
    except OSError as error:
        return "perhaps mounted: " + str(error)
    if volumes:
        return "mounted %d times, from %s" % (len(volumes), ", ".join(sorted({where(v[1]) for v in volumes})[:4]))
    try:
        with open(SERVER) as lines:
            threads = [line.split()[1] for line in lines if line.startswith("th ")]
    except FileNotFoundError:
        return ""
    except (OSError, IndexError) as error:
        return "perhaps served here: " + str(error)
    return "" if threads in ([], ["0"]) else "served here, by %s threads" % threads[0]


def where(address):
    try:
        raw = bytes.fromhex(address)
        return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)
    except ValueError:
        return address


def notify():
    """The once-per-boot notification, unless guests are up already: the engine may start this container at any time."""
    used = in_use()
    if not used:
        start(["sm-notify", "-d"])  # in the foreground: see wait()
    elif not os.path.exists(MARK):
        os.close(os.open(MARK, os.O_WRONLY | os.O_CREAT, 0o600))
        say("NFSv3 is in use already (%s), so the servers are not told that this host rebooted: they would drop locks that are held now." % used)
        say("Locks from before the reboot stay on them until the next one. To free one, end who waits for it and remove the lock at the server.")


def wait():
    """The next child that ended. A server that does not answer at boot would be told within a quarter of an hour, when guests may have locks there again:
    as soon as something is mounted, no more are told. sm.bak keeps them for the next boot."""
    while "sm-notify" in RUNNING.values():
        used = in_use()
        if used:
            say("NFSv3 is in use by now (%s): servers that have not answered yet are told of this reboot no more" % used)
            end("sm-notify")
            break
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            return pid, status
        time.sleep(0.2)
    return os.wait()


def own_table():
    """rpcbind keeps its table in /run/rpcbind over a restart, as the user that it becomes. The host's may have another number."""
    os.makedirs("/run/rpcbind", exist_ok=True)
    for name in "_rpc", "rpc":  # Debian's, EL's
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chmod("/run/rpcbind", 0o700)
        os.chown("/run/rpcbind", user.pw_uid, user.pw_gid)
        for entry in os.scandir("/run/rpcbind"):
            os.chown(entry.path, user.pw_uid, user.pw_gid, follow_symlinks=False)
        return


def start(args, passed=()):
    pid = os.fork()
    if pid:
        RUNNING[pid] = args[0]
        return
    try:
        env = dict(os.environ)
        if passed:
            spare = [fcntl.fcntl(s, fcntl.F_DUPFD_CLOEXEC, FIRST + len(passed)) for s in passed]
            for i, fd in enumerate(spare):
                os.dup2(fd, FIRST + i)
            env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(passed)))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.execvpe(args[0], args, env)
    except BaseException as error:
        say("cannot start", args[0] + ":", error)
    finally:
        os._exit(127)


def end(name):
    for pid, running in RUNNING.items():
        if running == name:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)  # a stopped process heeds nothing else


def await_end(name, seconds):
    deadline = time.monotonic() + seconds
    while name in RUNNING.values() and time.monotonic() < deadline:
        RUNNING.pop(os.waitpid(-1, os.WNOHANG)[0], None)
        time.sleep(0.01)


def stop(*_):
    # One after the other: statd says goodbye to rpcbind, and rpcbind writes its table down.
    for name in "rpc.statd", "rpcbind":
        end(name)
        await_end(name, 3)
    os._exit(0)


def how(status):  # without os.waitstatus_to_exitcode, which is of Python 3.9
    return "signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else "status %d" % os.WEXITSTATUS(status)


def call(port, program, version, procedure, *arguments):
    """One RPC over UDP (RFC 5531); the first word of its result."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.connect(("127.0.0.1", port))
        s.send(struct.pack(">%dI" % (10 + len(arguments)), 1, 0, 2, program, version, procedure, 0, 0, 0, 0, *arguments))
        return struct.unpack(">7I", (s.recv(512) + bytes(28))[:28])[6]


def answers(statd):
    try:
        port = call(111, 100000, 2, 3, 100024, 1, socket.IPPROTO_UDP, 0)  # GETPORT
        if statd and port:
            call(port, 100024, 1, 0)
        return not statd or port > 0
    except OSError:
        return False


def notifying():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/comm" % pid) as name:
                if name.read().strip() == "sm-notify":
                    return True
        except OSError:
            pass
    return False


def ready(statd):
    """For the unit, which lets nobody start before. A server that is down is not waited for: sm-notify tries for a quarter of an hour."""
    for limit, missing in (20, lambda: not answers(statd)), (5, lambda: statd and notifying()):
        deadline = time.monotonic() + limit
        while missing():
            if time.monotonic() > deadline:
                say("not ready after", limit, "seconds")
                return
            time.sleep(0.1)


def main(args):
    statd = "--statd" in args
    if "--ready" in args:
        return ready(statd)
    addresses = [a for a in args if a != "--statd"] or ["0.0.0.0", "::"]
    signal.signal(signal.SIGTERM, stop)
    sockets = listeners(addresses)
    own_table()
    rpcbind = ["rpcbind", "-f", "-w"]
    monitor = ["rpc.statd", "--foreground", "--no-notify"]
    start(rpcbind, sockets)
    if statd:
        notify()
        start(monitor)
    while True:
        pid, status = wait()
        name = RUNNING.pop(pid, None)
        if name not in ("rpcbind", "rpc.statd"):
            continue
        say(name, "ended with", how(status))
        time.sleep(1)
        if name == "rpcbind":
            # Killed, it has forgotten who was registered: statd has to register again.
            start(rpcbind, sockets)
            end("rpc.statd")
        else:
            start(monitor)


if __name__ == "__main__":
    main(sys.argv[1:])
