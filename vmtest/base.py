# SPDX-License-Identifier: Apache-2.0
"""What the parts of vmtest share: where things are, how trouble is told, how programs are run."""

import os
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build" / "vmtest"
CACHE = pathlib.Path(os.environ.get("AGENTNIC_CACHE") or ROOT / ".cache").resolve() / "vmtest"
KERNEL_TROUBLE = re.compile((ROOT / "tests" / "harness" / "kernel-trouble").read_text().strip())


class Trouble(Exception):
    """What went wrong and, as a hint, what to do about it: one line for people."""

    def __init__(self, what, hint=""):
        super().__init__(f"{what}; hint: {hint}" if hint else what)


class Unreachable(Trouble):
    """Debian's archive did not answer: nobody's mistake."""


def output_of(argv, **options):
    """What a program prints; Trouble with what it said when it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL, **options)
    except FileNotFoundError as error:
        raise Trouble(f"run {argv[0]}: not found", "make deps") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()
        raise Trouble(f"{' '.join(map(str, argv[:3]))}: {'; '.join(said[-3:])}")
    return done.stdout


def make_disk(tree, disk, spare_mib):
    """An ext4 image of a folder; root owns its files whoever runs this."""
    size_kib = int(output_of(["du", "-sk", "--apparent-size", tree]).split()[0])
    files = int(output_of(["du", "-s", "--inodes", tree]).split()[0])
    blocks_kib = size_kib + files * 4 + spare_mib * 1024
    part = disk.with_suffix(".part")
    part.unlink(missing_ok=True)
    output_of(["/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-N", str(files * 2 + 4096), "-E", "root_owner=0:0",
               "-d", tree, part, f"{blocks_kib}k"])
    part.rename(disk)


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
