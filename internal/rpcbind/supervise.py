"""Keeps rpcbind and rpc.statd running: the first process of the container that rpcbind_ensure makes.

usage: supervise.py [--statd] [ADDRESS ...]    without an address port 111 of every one

rpcbind gets its sockets from here as it gets them from systemd (sd_listen_fds(3)): its own -h restricts UDP only, and
without /etc/services, which container images may lack, it opens no port at all.
"""
import fcntl
import os
import pwd
import signal
import socket
import sys
import time

FIRST = 3  # SD_LISTEN_FDS_START
IP_FREEBIND = 15  # linux/in.h, of IPv6 sockets too: at boot the addresses may come later
RUNNING = {}  # pid: name


def listeners(addresses):
    path = "/run/rpcbind.sock"
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    local.bind(path)
    os.chmod(path, 0o666)
    local.listen()
    yield local
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
        print("cannot start", args[0] + ":", error, file=sys.stderr, flush=True)
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


def main(args):
    statd = "--statd" in args
    addresses = [a for a in args if a != "--statd"] or ["0.0.0.0", "::"]
    signal.signal(signal.SIGTERM, stop)
    sockets = list(listeners(addresses))
    own_table()
    rpcbind = ["rpcbind", "-f", "-w"]
    monitor = ["rpc.statd", "--foreground", "--no-notify"]
    start(rpcbind, sockets)
    if statd:
        # Once per boot: sm-notify does nothing while /run/sm-notify.pid exists, and /run is the host's.
        start(["sm-notify"])
        start(monitor)
    while True:
        pid, status = os.wait()
        name = RUNNING.pop(pid, None)
        if name not in ("rpcbind", "rpc.statd"):
            continue
        print(name, "ended with", os.waitstatus_to_exitcode(status), file=sys.stderr, flush=True)
        time.sleep(1)
        if name == "rpcbind":
            # Killed, it has forgotten who was registered: statd has to register again.
            start(rpcbind, sockets)
            end("rpc.statd")
        else:
            start(monitor)


main(sys.argv[1:])
