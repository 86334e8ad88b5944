#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Requests, and answers after a known time, for the net tests of turnaround.

    serve [--late-every N] [--never] MS LATE-MS PORT    answers over UDP and TCP after MS, every Nth request after LATE-MS, until it is ended
    ask [--pipelined] udp|tcp FLOWS SECONDS TO PORT     each flow asks, waits for the answer, and asks again; with --pipelined two at a
                                                        time. One line of JSON: answers, p50_ns, p99_ns, as the client has them
    step TO PORT                                        one connection; for each line of input a request, and its answer's ns on a line
"""

import argparse
import heapq
import json
import selectors
import socket
import sys
import threading
import time

REQUEST, ANSWER = 64, 200  # bytes
TIMEOUT_S = 0.5


class Server:
    def __init__(self, options):
        self.options, self.due, self.count = options, [], 0
        self.selector = selectors.DefaultSelector()
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)  # and of IPv4
        datagrams.bind(("::", options.port))
        listener = socket.create_server(("::", options.port), family=socket.AF_INET6, dualstack_ipv6=True)
        self.selector.register(datagrams, selectors.EVENT_READ, self.datagram)
        self.selector.register(listener, selectors.EVENT_READ, self.accept)

    def later(self, answer):
        self.count += 1
        late = self.options.late_every and self.count % self.options.late_every == 0
        wait_s = (self.options.late_ms if late else self.options.ms) / 1000
        if not self.options.never:
            heapq.heappush(self.due, (time.monotonic() + wait_s, self.count, answer))

    def datagram(self, where):
        _, sender = where.recvfrom(65536)
        self.later(lambda: where.sendto(bytes(ANSWER), sender))

    def accept(self, where):
        connection, _ = where.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(connection, selectors.EVENT_READ, self.stream)

    def stream(self, where):
        try:
            got = len(where.recv(65536))
        except OSError:
            got = 0
        if not got:
            self.selector.unregister(where)
            where.close()
        for _ in range(got // REQUEST):  # requests arrive whole: they are shorter than a segment
            self.later(lambda: where.send(bytes(ANSWER)))

    def run(self):
        print("ready", flush=True)
        while True:
            wait_s = max(0, self.due[0][0] - time.monotonic()) if self.due else None
            for key, _ in self.selector.select(wait_s):
                key.data(key.fileobj)
            while self.due and self.due[0][0] <= time.monotonic():
                try:
                    heapq.heappop(self.due)[2]()
                except OSError:  # who asked has gone
                    pass


def ask(options, took_ns):
    stream = options.protocol == "tcp"
    client = socket.create_connection((options.to, options.port)) if stream else socket.socket(
        socket.AF_INET6 if ":" in options.to else socket.AF_INET, socket.SOCK_DGRAM)
    if stream:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        client.connect((options.to, options.port))
    client.settimeout(TIMEOUT_S)
    at_once = 2 if options.pipelined else 1
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        begin = time.monotonic_ns()
        try:
            for _ in range(at_once):
                client.send(bytes(REQUEST))
            left = at_once * ANSWER
            while left > 0:
                got = len(client.recv(65536))
                if not got and stream:  # the server has gone
                    return
                left -= got
        except OSError:  # no answer, or nobody there
            time.sleep(0.01)
            continue
        took_ns.append(time.monotonic_ns() - begin)


def step(options):
    client = socket.create_connection((options.to, options.port))
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.monotonic_ns()
        client.send(bytes(REQUEST))
        client.recv(65536)
        print(time.monotonic_ns() - begin, flush=True)


def ask_all(options):
    took_ns = []
    flows = [threading.Thread(target=ask, args=(options, took_ns)) for _ in range(options.flows)]
    for flow in flows:
        flow.start()
    for flow in flows:
        flow.join()
    took_ns.sort()
    at = lambda part: took_ns[int(len(took_ns) * part)] if took_ns else None
    print(json.dumps({"answers": len(took_ns), "p50_ns": at(0.5), "p99_ns": at(0.99)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve")
    server.add_argument("--late-every", type=int, default=0)
    server.add_argument("--never", action="store_true")
    server.add_argument("ms", type=float)
    server.add_argument("late_ms", type=float)
    server.add_argument("port", type=int)
    client = commands.add_parser("ask")
    client.add_argument("--pipelined", action="store_true")
    client.add_argument("protocol", choices=("udp", "tcp"))
    client.add_argument("flows", type=int)
    client.add_argument("seconds", type=float)
    client.add_argument("to")
    client.add_argument("port", type=int)
    client = commands.add_parser("step")
    client.add_argument("to")
    client.add_argument("port", type=int)
    options = parser.parse_args()
    if options.command == "serve":
        Server(options).run()
    elif options.command == "step":
        step(options)
    else:
        ask_all(options)


main()
