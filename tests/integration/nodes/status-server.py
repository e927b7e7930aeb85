"""The part of an NFS server that a client's reboot notification reaches: a portmapper and a status program (NSM).
Writes a line for each call that arrives. usage: status-server.py ADDRESS LOG"""
import selectors
import socket
import struct
import sys
import time

PORTMAPPER, STATUS = 100000, 100024
STATUS_PORT = 4045
NAMES = {(PORTMAPPER, 3): "GETPORT", (PORTMAPPER, 0): "NULL", (STATUS, 6): "SM_NOTIFY"}  # rpcb's GETADDR has number 3, too


def reply(data, who, log):
    if len(data) < 24:
        print(time.time(), who, "short", len(data), file=log, flush=True)
        return None
    xid, _kind, _rpc, program, version, procedure = struct.unpack(">6I", data[:24])
    call = NAMES.get((program, procedure), "%d/%d" % (program, procedure))
    print("%.3f %s %s version %d" % (time.time(), who, call, version), file=log, flush=True)
    accepted = struct.pack(">6I", xid, 1, 0, 0, 0, 0)
    if (program, procedure) == (PORTMAPPER, 3):
        if version > 2:
            return struct.pack(">8I", xid, 1, 0, 0, 0, 2, 2, 2)  # version 2 only
        return accepted + struct.pack(">I", STATUS_PORT)
    return accepted


def main(address, path):
    log = open(path, "a")
    ready = selectors.DefaultSelector()
    for port in 111, STATUS_PORT:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, port))
        ready.register(udp, selectors.EVENT_READ, "udp")
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((address, port))
        tcp.listen()
        ready.register(tcp, selectors.EVENT_READ, "listener")
    print("%.3f ready" % time.time(), file=log, flush=True)
    while True:
        for key, _mask in ready.select():
            if key.data == "udp":
                data, peer = key.fileobj.recvfrom(9000)
                answer = reply(data, peer[0], log)
                if answer:
                    key.fileobj.sendto(answer, peer)
            elif key.data == "listener":
                conn, peer = key.fileobj.accept()
                conn.settimeout(5)
                ready.register(conn, selectors.EVENT_READ, peer[0])
            else:
                try:
                    data = key.fileobj.recv(9000)
                except OSError:
                    data = b""
                if not data:
                    ready.unregister(key.fileobj)
                    key.fileobj.close()
                    continue
                answer = reply(data[4:], key.data, log)
                if answer:
                    key.fileobj.sendall(struct.pack(">I", 0x80000000 | len(answer)) + answer)


main(*sys.argv[1:])
