# SPDX-License-Identifier: Apache-2.0
"""The devices that tests may ask for, by the name of a tag. What the guest does with them is in `guest`."""

import dataclasses
import os
import subprocess


@dataclasses.dataclass
class Profile:
    what: str
    qemu: tuple = ()   # options
    setup: str = ""    # shell, run on the host in a network namespace that goes with the guest


PROFILES = {
    "plain": Profile("no device but lo"),
    # iommu_platform and no legacy: with these virtio_net of Linux 7.3 offers AF_XDP zero-copy.
    "two-virtio": Profile("two virtio NICs joined, virtio0 and virtio1", qemu=(
        "-netdev", "hubport,id=v0,hubid=1", "-device", "virtio-net-pci,netdev=v0,mac=02:00:00:00:01:01,iommu_platform=on,disable-legacy=on",
        "-netdev", "hubport,id=v1,hubid=1", "-device", "virtio-net-pci,netdev=v1,mac=02:00:00:00:01:02,iommu_platform=on,disable-legacy=on")),
    "multi-queue": Profile("two virtio NICs of two queues and with RSS joined, mq0 and mq1", qemu=(
        "-netdev", "tap,id=m0,ifname=mq0,queues=2,script=no,downscript=no",
        "-device", "virtio-net-pci,netdev=m0,mac=02:00:00:00:02:01,mq=on,rss=on,vectors=6,iommu_platform=on,disable-legacy=on",
        "-netdev", "tap,id=m1,ifname=mq1,queues=2,script=no,downscript=no",
        "-device", "virtio-net-pci,netdev=m1,mac=02:00:00:00:02:02,mq=on,rss=on,vectors=6,iommu_platform=on,disable-legacy=on"),
        setup="""
            sysctl -qw net.ipv6.conf.default.disable_ipv6=1
            ip link add joined type bridge stp_state 0 forward_delay 0
            for tap in mq0 mq1; do
                ip tuntap add $tap mode tap multi_queue
                ip link set $tap master joined up
            done
            ip link set joined up"""),
    "rdma": Profile("soft-RoCE: rxe0 on rdma0, looped back"),
}


def namespace():
    """The command that gives a program a network namespace of its own, as root or as anybody."""
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]


def unavailable(name):
    """Why this machine cannot provide a profile, or nothing: found out by trying."""
    if not PROFILES[name].setup:
        return ""
    done = subprocess.run([*namespace(), "bash", "-ec", PROFILES[name].setup], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it failed"
