#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who outlives the holder of a session: survivor.py PID.

Takes copies of the descriptors of the session that the process holds, says "ready", and does what lines of its input say:

    kill                            kills the process, with SIGKILL, and says so when it is gone
    KIND KEY=VALUE...               proposes: tenant, cls, service, bucket, value, duration (s), of numbers as in bpf/abi;
                                    times=N: so many, in one drain; up=N: each with a value that is larger by this

It answers to proposals with a line of JSON: what the drain answered, and the last decision.
"""

import ctypes
import json
import mmap
import os
import platform
import select
import signal
import struct
import sys

KINDS = ("", "queue_weight_adjust", "bulk_path_throttle", "flow_class_escalate", "path_switch", "queue_rebalance", "quota_borrow")
DECIDED = ("", "approve", "rewrite", "reject")
INVARIANTS = ("", "form", "C1", "C2", "I1", "I2", "I3", "R1", "R2", "R3", "R4", "R5", "R6", "A1", "A2", "A3", "L1", "L2", "L3", "L4")
DRAIN_WORD = 0x6E69617264636967
DRAIN_MAX = 64
PROPOSAL = struct.Struct("=IBBBBHHIQQQ40s")
ANSWER = struct.Struct("=QBB2xIQQQQQ")
ANSWERS_AT = 64
PAGE = mmap.PAGESIZE
RING = 1 << 16
SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
SYS_PIDFD_GETFD = 438
PROG_TEST_RUN = 10
OBJ_GET_INFO = 15
NAME_AT = {"map": 24, "prog": 64}

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    code = libc.syscall(number, *arguments)
    if code < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return code


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    call(SYS_BPF, command, ctypes.byref(buffer), len(attributes))
    return buffer.raw


def name_of(fd, kind):
    info = ctypes.create_string_buffer(256)
    bpf(OBJ_GET_INFO, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
    return info.raw[NAME_AT[kind]:NAME_AT[kind] + 16].split(b"\0")[0].decode()


def copies_of(pid):
    """The BPF maps and programs that the process has descriptors of, by name; of one name any of them."""
    found = {}
    process = os.pidfd_open(pid)
    for number in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{number}")
        if not target.startswith("anon_inode:bpf"):
            continue
        kind = target.removeprefix("anon_inode:bpf").lstrip("-")
        if kind not in NAME_AT:
            continue
        fd = call(SYS_PIDFD_GETFD, process, int(number), 0)
        found[name_of(fd, kind)] = fd
    return process, found


class Session:
    def __init__(self, found):
        self.drain_fd = found["anic_drain"]
        ring = found["session_ring"]
        self.consumer = mmap.mmap(ring, PAGE, mmap.MAP_SHARED, mmap.PROT_READ)
        self.producer = mmap.mmap(ring, PAGE + 2 * RING, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=PAGE)
        self.page = mmap.mmap(found["session_page"], PAGE, mmap.MAP_SHARED, mmap.PROT_READ)

    def write(self, sample):
        at = struct.unpack_from("=Q", self.producer)[0]
        place = PAGE + at % RING
        self.producer[place + 8:place + 8 + len(sample)] = sample
        struct.pack_into("=II", self.producer, place, len(sample), 0)
        struct.pack_into("=Q", self.producer, 0, at + 8 + len(sample))

    def drain(self):
        while True:
            draining = ctypes.create_string_buffer(struct.pack("=12Q", *[0] * 11, DRAIN_WORD), 96)
            run = struct.pack("=IIIIQQIIIIQQIIII", self.drain_fd, 0, 0, 0, 0, 0, 0, 0, len(draining), 0, ctypes.addressof(draining), 0, 0, 0, 0, 0)
            code = struct.unpack_from("=i", bpf(PROG_TEST_RUN, run), 4)[0]
            if code != -16:  # EBUSY
                return code

    def last(self):
        answered = struct.unpack_from("=Q", self.page)[0]
        at = ANSWERS_AT + (answered - 1) % DRAIN_MAX * ANSWER.size
        _, decided, invariant, _, observed, requested, approved, _, seq = ANSWER.unpack_from(self.page, at)
        return {"decided": DECIDED[decided], "invariant": INVARIANTS[invariant], "observed": observed, "requested": requested,
                "approved": approved, "seq": seq}

    def propose(self, kind, tenant=1, cls=0, service=0, bucket=0, value=0, duration=0, times=1, up=0):
        for i in range(times):
            self.write(PROPOSAL.pack(PROPOSAL.size, KINDS.index(kind), tenant, cls, 0, service, bucket, 0, value + i * up,
                                     duration * 1000000000, 1, b"of a survivor"))
        code = self.drain()
        return {"code": code} | (self.last() if code > 0 else {})


def main():
    pid = int(sys.argv[1])
    process, found = copies_of(pid)
    session = Session(found)
    print("ready", flush=True)
    for line in sys.stdin:
        word, *pairs = line.split()
        if word == "kill":
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [])
            print("killed", flush=True)
        else:
            numbers = {key: int(value) for key, value in (pair.split("=") for pair in pairs)}
            print(json.dumps(session.propose(word, **numbers)), flush=True)


main()
