#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sends UDP datagrams at a rate, and measures what arrives, for the net tests of quotas.

    send [--from ADDRESS] [--cpu N] [--mark N] RATE BYTES TO PORT     wire bit/s; payload bytes; until it is ended
    receive WARM-UP SECONDS PORT...                        the wire bit/s of each port, one number a line; what comes
                                                           in the seconds of the warm-up does not count
"""

import argparse
import os
import select
import socket
import time

OVERHEAD = {socket.AF_INET: 14 + 20 + 8 + 24, socket.AF_INET6: 14 + 40 + 8 + 24}  # headers, and what a frame costs on the wire
SLICE_S = 0.002
SO_MARK = 36


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def send(options):
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    family = family_of(options.to)
    sender = socket.socket(family, socket.SOCK_DGRAM)
    if options.source:
        sender.bind((options.source, 0))
    if options.mark:
        sender.setsockopt(socket.SOL_SOCKET, SO_MARK, options.mark)
    sender.connect((options.to, options.port))
    datagram = bytes(options.bytes)
    gap = (options.bytes + OVERHEAD[family]) * 8 / options.rate
    print("ready", flush=True)
    due = time.monotonic()
    while True:
        now = time.monotonic()
        if due < now - 0.1:  # too slow: what was missed is not made up for
            due = now
        while due <= now:
            try:
                sender.send(datagram)
            except OSError:  # a drop at egress, or nobody listens
                pass
            due += gap
        time.sleep(SLICE_S)


def receive(options):
    sockets = {}
    for port in options.port:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)  # and of IPv4
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        listener.bind(("::", port))
        sockets[listener] = 0
    print("ready", flush=True)
    begin = time.monotonic() + options.warm_up
    end = begin + options.seconds
    while (now := time.monotonic()) < end:
        for listener in select.select(list(sockets), [], [], end - now)[0]:
            data, peer = listener.recvfrom(65536)
            family = socket.AF_INET if peer[0].startswith("::ffff:") else socket.AF_INET6
            if time.monotonic() >= begin:
                sockets[listener] += len(data) + OVERHEAD[family]
    for received in sockets.values():
        print(round(received * 8 / options.seconds))


def main():
    parser = argparse.ArgumentParser(description="UDP at a rate.")
    roles = parser.add_subparsers(required=True)
    role = roles.add_parser("send")
    role.add_argument("--from", dest="source")
    role.add_argument("--cpu", type=int)
    role.add_argument("--mark", type=int)
    role.add_argument("rate", type=float)
    role.add_argument("bytes", type=int)
    role.add_argument("to")
    role.add_argument("port", type=int)
    role.set_defaults(run=send)
    role = roles.add_parser("receive")
    role.add_argument("warm_up", type=float)
    role.add_argument("seconds", type=float)
    role.add_argument("port", type=int, nargs="+")
    role.set_defaults(run=receive)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
