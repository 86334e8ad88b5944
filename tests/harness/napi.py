#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The NAPIs of an interface of this network namespace, asked of the kernel by its netlink family netdev, without
anything of agentnic.

    napi.py IFACE                   prints them as a JSON list, by id
    napi.py IFACE KEY=NUMBER...     sets this in all of them, as somebody else would

Exits with 77 where the kernel has no such family or command. Numbers are those of Documentation/netlink/specs/netdev.yaml.
"""

import errno
import json
import socket
import struct
import sys

GENERIC, CONTROL, REQUEST, ACK, DUMP, ERROR, DONE = 16, 16, 1, 4, 0x300, 2, 3
GET_FAMILY, NAPI_GET, NAPI_SET = 3, 11, 14
IFINDEX, ID = 1, 2
KEYS = {"id": ID, "pid": 4, "defer_hard_irqs": 5, "gro_flush_timeout_ns": 6, "irq_suspend_timeout_ns": 7, "threaded": 8}
WIDE = ("gro_flush_timeout_ns", "irq_suspend_timeout_ns")


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def attributes(data):
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def ask(family, command, payload, flags):
    """What is answered, each message as a dictionary; OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, GENERIC) as netlink:
        body = struct.pack("=BBH", command, 1, 0) + payload
        netlink.send(struct.pack("=IHHII", 16 + len(body), family, REQUEST | flags, 1, 0) + body)
        answers = []
        while True:
            data = netlink.recv(1 << 20)
            at = 0
            while at < len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind in (ERROR, DONE):
                    if code := struct.unpack_from("=i", data, at + 16)[0]:
                        raise OSError(-code, errno.errorcode.get(-code, "?"))
                    return answers
                answers.append(dict(attributes(data[at + 20 : at + length])))
                at += (length + 3) & ~3


def number(data):
    return int.from_bytes(data, sys.byteorder)


def main(name, *changes):
    try:
        family = number(ask(CONTROL, GET_FAMILY, attribute(2, b"netdev\0"), ACK)[0][1])
        ifindex = socket.if_nametoindex(name)
        answers = ask(family, NAPI_GET, attribute(IFINDEX, struct.pack("=I", ifindex)), DUMP)
        napis = [{key: number(answer[kind]) for key, kind in KEYS.items() if kind in answer} for answer in answers]
        if not changes:
            print(json.dumps(sorted(napis, key=lambda napi: napi["id"])))
        for napi in napis if changes else ():
            payload = attribute(ID, struct.pack("=I", napi["id"]))
            for key, _, value in (change.partition("=") for change in changes):
                payload += attribute(KEYS[key], struct.pack("=Q" if key in WIDE else "=I", int(value)))
            ask(family, NAPI_SET, payload, ACK)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise
        sys.exit(77)


main(*sys.argv[1:])
