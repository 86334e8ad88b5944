#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Numbered UDP datagrams on several flows, for the net tests of steering: what is lost, and what comes late.

    send [--flows N] [--cpu N] RATE TO PORT     datagrams a second, on ports PORT, PORT + 1, ...; until it is ended, then
                                                how many it sent, on one line
    burst [--cpu N] COUNT TO PORT               so many datagrams as fast as it can, without numbers
    receive [--flows N] FROM PORT               until it is ended, then one line of JSON: datagrams received, those that
                                                came after one that was sent later, and for each flow the CPU that
                                                its last one came by
    ask RATE TO PORT                            one flow to a server that echoes; until it is ended, and then likewise
"""

import argparse
import json
import os
import select
import signal
import socket
import struct
import time

SLICE_S = 0.001
LAST_ANSWERS_S = 1.0
SO_INCOMING_CPU = 49
UDP_SEGMENT = 103
SEGMENTS = 50  # of one call
NUMBER = struct.Struct("!Q")
MISSED_S = 0.1

stopped = False


def stop(_number, _frame):
    global stopped
    stopped = True


class Flow:
    """What was received of it."""

    def __init__(self, sock):
        self.sock = sock
        self.received = self.late = 0
        self.highest = -1

    def take(self):
        """All that waits."""
        while True:
            try:
                data = self.sock.recv(2048, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionRefusedError):
                return
            number = NUMBER.unpack_from(data)[0]
            self.received += 1
            self.late += number < self.highest
            self.highest = max(self.highest, number)


def connected(to, port):
    """From a port of the same number. Only of a connected socket the kernel says by which CPU packets come."""
    sock = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind(("", port))
    sock.connect((to, port))
    return sock


def report(flows, **more):
    print(json.dumps({"received": sum(flow.received for flow in flows), "late": sum(flow.late for flow in flows), **more}),
          flush=True)


def send_all(socks, rate, between):
    """Sends until it is ended, and calls between() in the pauses. How many it sent."""
    sent = 0
    due = time.monotonic()
    while not stopped:
        now = time.monotonic()
        if due < now - MISSED_S:
            due = now
        while due <= now:
            try:
                socks[sent % len(socks)].send(NUMBER.pack(sent // len(socks)) + bytes(24))
            except ConnectionRefusedError:
                continue
            sent += 1
            due += 1 / rate
        between()
    return sent


def send(options):
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    socks = [connected(options.to, options.port + i) for i in range(options.flows)]
    print("ready", flush=True)
    print(send_all(socks, options.rate, lambda: time.sleep(SLICE_S)), flush=True)


def burst(options):
    os.sched_setaffinity(0, {options.cpu})
    sock = connected(options.to, options.port)
    sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 24)
    sent = 0
    while sent < options.count:
        try:
            sock.send(bytes(24 * SEGMENTS))
            sent += SEGMENTS
        except ConnectionRefusedError:
            pass
    print(sent)


def receive(options):
    flows = [Flow(connected(options.source, options.port + i)) for i in range(options.flows)]
    print("ready", flush=True)
    while not stopped:
        select.select([flow.sock for flow in flows], [], [], 0.1)
        for flow in flows:
            flow.take()
    report(flows, cpus=[flow.sock.getsockopt(socket.SOL_SOCKET, SO_INCOMING_CPU) for flow in flows])


def ask(options):
    flow = Flow(connected(options.to, options.port))
    print("ready", flush=True)

    def between():
        select.select([flow.sock], [], [], SLICE_S)
        flow.take()

    sent = send_all([flow.sock], options.rate, between)
    end = time.monotonic() + LAST_ANSWERS_S
    while flow.received < sent and time.monotonic() < end:
        between()
    report([flow], sent=sent)


def main():
    parser = argparse.ArgumentParser(description="Numbered UDP datagrams.")
    roles = parser.add_subparsers(required=True)
    for name, run in (("send", send), ("burst", burst), ("receive", receive), ("ask", ask)):
        role = roles.add_parser(name)
        role.set_defaults(run=run)
        role.add_argument("--flows", type=int, default=1)
        role.add_argument("--cpu", type=int)
        if name == "receive":
            role.add_argument("source")
        else:
            role.add_argument("count" if name == "burst" else "rate", type=float)
            role.add_argument("to")
        role.add_argument("port", type=int)
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    options.run(options)


if __name__ == "__main__":
    main()
