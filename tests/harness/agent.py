#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Agents for the net tests, good and bad: agent.py WHAT. Each begins like a good one, and does what it is called at its third observation."""

import ctypes
import json
import os
import platform
import signal
import socket
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
BPF = 321 if platform.machine() == "x86_64" else 280
WEIGHT = int(os.environ.get("WEIGHT", "150"))


def send(text):
    sys.stdout.write(text)
    sys.stdout.flush()


def answer(message, proposals=()):
    send(json.dumps({"tick": message["tick"], "proposals": list(proposals)}) + "\n")


def weight(tenant="acme", value=WEIGHT, **more):
    return {"id": 7, "kind": "queue_weight_adjust", "tenant": tenant, "class": "rpc", "value": value, "reason": "a test", **more}


def note(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def call(name, *arguments):
    """A function of libc, or OSError."""
    if getattr(LIBC, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def attempt(what, try_it):
    try:
        try_it()
        note(f"{what}: done")
    except OSError as error:
        note(f"{what}: {os.strerror(error.errno)}")


def good(message):
    answer(message)


def propose(message):
    if message["number"] == 3:
        answer(message, [weight()])
    else:
        answer(message)


def propose_always(message):
    answer(message, [weight(tenant=tenant["tenant"], value=WEIGHT + message["tick"] % 2) for tenant in message["tenants"]])


def insist(message):
    answer(message, [weight(), weight(tenant="globex", id=8)])


def others(message):
    note("tenants " + ",".join(row["tenant"] for row in message["tenants"]) + " classes " + ",".join(sorted({row["class"] for row in message["lanes"]})))
    answer(message, [weight(tenant="globex")])


def silent(_):
    time.sleep(3600)


def garbage(_):
    send("\x00\xff{]\n" * 100)


def half(message):
    send('{"tick": ')
    sys.exit(0)


def long(_):
    while True:
        send("x" * 65536)


def flood(message):
    while True:
        answer(message)


def deaf(_):
    while True:
        send("{}\n")


def unread(message):
    for tick in range(message["tick"], 1 << 62):  # the next ones are as good as asked
        answer({"tick": tick})


def many(message):
    answer(message, [weight() for _ in range(65)])


def chatty(message):
    note("\x1b[31mred " * 100)
    answer(message)


def wordy(message):
    if message["number"] == 3:
        note(("x" * 999 + "\n") * 100 + "last words, without an end: ")
        sys.stderr.write("so long")
        sys.stderr.flush()
    answer(message)


def dies(_):
    sys.exit(3)


def ends(_):
    sys.exit(0)


def lingers(_):
    os.close(1)
    time.sleep(float(os.environ["LINGER"]))
    os._exit(0)


def world(_):
    attempt("socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    attempt("file", lambda: open("/tmp/agentnic-agent-test", "w"))
    attempt("device", lambda: os.open("/dev/kmsg", os.O_WRONLY))
    attempt("pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    attempt("pins", lambda: os.listdir("/sys/fs/bpf/agentnic"))
    for what, command in {"change a lane": 2, "load": 5, "open a pin": 7, "drain": 10, "get by id": 14}.items():
        attempt(what, lambda: call("syscall", BPF, command, ctypes.create_string_buffer(128), 128))
    attempt("trace", lambda: call("ptrace", 16, 1, None, None))
    attempt("namespace", lambda: call("unshare", 0x10000000))
    attempt("mount", lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
    attempt("outlive", lambda: call("prctl", 1, 0))
    if "PORT" in os.environ:
        attempt("connect", lambda: socket.create_connection(("127.0.0.1", int(os.environ["PORT"]))))
    attempt("root", lambda: os.setuid(0))
    note("user " + str(os.getuid()))
    note("processes " + str(sum(name.isdigit() for name in os.listdir("/proc"))))
    note("devices " + ",".join(name for name in sorted(os.listdir("/dev")) if name != "fd" and not name.startswith("std")))
    note("network " + ",".join(sorted(os.listdir("/sys/class/net"))))
    note("variables " + ",".join(sorted(set(os.environ) - {"LC_CTYPE", "PWD"})))
    note("descriptors " + str(len(os.listdir("/proc/self/fd")) - 1))  # without that of the listing
    sys.exit(0)


def forks(message):
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    for one in range(1, signal.NSIG):
        if one not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
            signal.signal(one, signal.SIG_IGN)
    while True:  # as long as it lives
        try:
            answer(message, [weight()])
        except OSError:
            pass


def main():
    what, number = globals()[sys.argv[1]], 0
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "observation":
            number += 1
            message["number"] = number
            (what if number >= 3 else good)(message)
        elif message["type"] == "decision":
            note(f"decision {message['id']} {message['decided']} {message['invariant']}")
        elif message["type"] == "error":
            note("error " + message["error"])


if __name__ == "__main__":
    main()
