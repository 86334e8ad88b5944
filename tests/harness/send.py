#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sends packets for the net tests, from the network namespace in which it runs: one line of its input says what.

    datagrams [OPTIONS] TO PORT    UDP datagrams by an ordinary socket, IPv4 or IPv6
    frames [OPTIONS] LAYER...      frames from lab0 by a packet socket, as they are written

A frame goes from the lab's client to its server, or with --from-server the other way. Its layers:

    vlan:ID  qinq:ID                 a tag of 802.1Q, of 802.1ad
    ip4  ip6                         a header; what follows is its payload
    hop  destination                 an IPv6 extension header of 8 bytes
    first  later                     an IPv6 fragment header
    udp:PORT                         from port 40000, with 32 bytes of payload and without a checksum
    icmp:TYPE                        ICMP or ICMPv6, with 32 bytes of payload
    hex:BYTES                        as they are; the type of what is before it is that of IPv4
    cut:LENGTH                       of all before it, this many bytes
"""

import argparse
import socket
import struct
import sys

HOSTS = {
    "client": ("020000000001", "198.18.0.1", "2001:db8::1"),
    "server": ("020000000002", "198.18.0.2", "2001:db8::2"),
}
# What the layer before it says of a layer: an Ethernet type, or a protocol number of IP.
TYPES = {"vlan": 0x8100, "qinq": 0x88A8, "ip4": 0x0800, "ip6": 0x86DD, "hex": 0x0800}
PROTOCOLS = {"hop": 0, "udp": 17, "first": 44, "later": 44, "destination": 60}
SO_MARK = 36


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def number_of(layer, ip):
    """How the header before it names this layer."""
    if layer == "icmp":
        return 58 if ip == 6 else 1
    return PROTOCOLS.get(layer, 59)


def frame_of(layers, source, destination):
    """Built from the end, because headers have the length of what follows."""
    ip = 6 if "ip6" in layers else 4
    data, follows = b"", ""
    for kind, _, value in (layer.partition(":") for layer in reversed(layers)):
        following = number_of(follows, ip)
        if kind in ("vlan", "qinq"):
            data = struct.pack("!HH", int(value), TYPES[follows]) + data
        elif kind == "ip4":
            head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, following, 0,
                               socket.inet_aton(source[1]), socket.inet_aton(destination[1]))
            data = head[:10] + struct.pack("!H", checksum(head)) + head[12:] + data
        elif kind == "ip6":
            ends = b"".join(socket.inet_pton(socket.AF_INET6, host[2]) for host in (source, destination))
            data = struct.pack("!IHBB", 6 << 28, len(data), following, 64) + ends + data
        elif kind in ("hop", "destination"):
            data = struct.pack("!BBBB4x", following, 0, 1, 4) + data  # filled up by PadN
        elif kind in ("first", "later"):
            data = struct.pack("!BxHI", following, 1 if kind == "first" else 8 << 3, 7) + data
        elif kind == "udp":
            data = struct.pack("!HHHH32x", 40000, int(value), 40, 0)
        elif kind == "icmp":
            data = struct.pack("!B39x", int(value))
        elif kind == "hex":
            data = bytes.fromhex(value) + data
        follows = kind
    return bytes.fromhex(destination[0] + source[0]) + struct.pack("!H", TYPES[follows]) + data


def send_frames(args):
    cut = [int(layer.partition(":")[2]) for layer in args.layers if layer.startswith("cut:")]
    hosts = [HOSTS["client"], HOSTS["server"]]
    if args.from_server:
        hosts.reverse()
    frame = frame_of([layer for layer in args.layers if not layer.startswith("cut:")], *hosts)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("lab0", 0))
        for _ in range(args.count):
            sock.send(frame[:cut[0]] if cut else frame)


def send_datagrams(args):
    family = socket.AF_INET6 if ":" in args.to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if args.mark:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, args.mark)
        if args.tos and family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, args.tos)
        elif args.tos:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, args.tos)
        sock.bind((args.source or ("::" if family == socket.AF_INET6 else ""), args.source_port))
        for _ in range(args.count):
            sock.sendto(bytes(args.size), (args.to, args.port))


def main():
    parser = argparse.ArgumentParser(description="Sends packets for the net tests.")
    verbs = parser.add_subparsers(required=True)
    frames = verbs.add_parser("frames")
    frames.add_argument("--from-server", action="store_true")
    frames.add_argument("layers", nargs="+", metavar="LAYER")
    frames.set_defaults(run=send_frames)
    datagrams = verbs.add_parser("datagrams")
    datagrams.add_argument("--source", default="")
    datagrams.add_argument("--source-port", type=int, default=0)
    datagrams.add_argument("--mark", type=int, default=0)
    datagrams.add_argument("--tos", type=lambda text: int(text, 0), default=0)
    datagrams.add_argument("--size", type=int, default=64)
    datagrams.add_argument("to")
    datagrams.add_argument("port", type=int)
    datagrams.set_defaults(run=send_datagrams)
    for verb in (frames, datagrams):
        verb.add_argument("--count", type=int, default=1)
    for line in sys.stdin:
        if line.split():
            args = parser.parse_args(line.split())
            args.run(args)


main()
