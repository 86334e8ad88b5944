# SPDX-License-Identifier: Apache-2.0
"""The disks of the guests: the system (programs of this machine's packages) and the project (what is tested).

Guests run the same files as this machine, so what was built here runs there. They are copied into small ext4
images, because reading the host's files one by one through an emulated 9p device takes minutes.
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import time

from base import ROOT, Trouble, fresh, make_disk, output_of

LIST = pathlib.Path(__file__).with_name("packages.txt")
# Not needed to run anything.
LEFT_OUT = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bash-completion|zsh|perl|i18n)/|/usr/include/|/usr/lib/python3[^/]*/(test|idlelib)/|\.a$")
# Made by maintainer scripts, so they belong to no package.
BESIDES = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf")
OLD_S = 7 * 86400  # a disk that no change of packages has asked for in a week
PROJECT = (".build/bin", ".build/tests/fixtures", "tests", "policies", "vmtest", "docs/examples", "userspace/units")


def listed():
    return [line.split()[0] for line in LIST.read_text().splitlines() if line.strip() and not line.startswith("#")]


def owners(files):
    """The packages that installed these files. A path of the merged /usr may be listed without it."""
    wanted = {path.removeprefix("/usr") for path in files}
    found = set()
    query = subprocess.run(["dpkg", "-S", *sorted({p for path in wanted for p in (path, f"/usr{path}")})],
                           capture_output=True, text=True, check=False).stdout
    for line in query.splitlines():
        package, _, path = line.partition(": ")
        found.add(package.split(":")[0])
        wanted.discard(path.removeprefix("/usr"))
    if wanted:
        raise Trouble(f"no package owns {', '.join(sorted(wanted))}, which the tested programs are linked with")
    return found


def libraries(programs):
    """The shared libraries that these programs are linked with."""
    text = output_of(["ldd", *programs])
    return {os.path.realpath(path) for path in re.findall(r"=> (/\S+)", text)}


def with_dependencies(packages):
    """These packages and what they depend on, as installed here: {name: version}."""
    installed, provides = {}, {}
    for line in output_of(["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Status}\t${Provides}\t${Pre-Depends}, ${Depends}\n"]).splitlines():
        name, version, status, provided, depends = line.split("\t")
        if status != "install ok installed":
            continue
        installed[name] = (version, depends)
        for virtual in re.findall(r"[\w.+-]+(?=\s*(?:\(|,|$))", provided):
            provides.setdefault(virtual, name)
    chosen, waiting = {}, list(packages)
    while waiting:
        name = waiting.pop()
        name = name if name in installed else provides.get(name, name)
        if name in chosen:
            continue
        if name not in installed:
            raise Trouble(f"the guests need the package {name}, which is not installed here", "make deps")
        version, depends = installed[name]
        chosen[name] = version
        for clause in depends.split(","):
            names = [re.sub(r"[\s(:].*", "", choice.strip()) for choice in clause.split("|")]
            waiting += [n for n in names if n in installed or n in provides][:1]
    return chosen


def files_of(packages):
    """The paths to copy, folders left out."""
    paths = set()
    for path in output_of(["dpkg", "-L", *packages]).splitlines():
        if path.startswith("/") and not LEFT_OUT.search(path) and (os.path.islink(path) or os.path.isfile(path)):
            paths.add(path)
    paths.update(BESIDES)
    return sorted(path for path in paths if os.path.islink(path) or os.access(path, os.R_OK))


def system_disk(cache, programs):
    """The disk with the guests' programs; made again when a package changed. Returns its path."""
    packages = with_dependencies(listed() + sorted(owners(libraries(programs))))
    recipe = pathlib.Path(__file__).read_text() + "".join(f"{name} {version}\n" for name, version in sorted(packages.items()))
    disk = cache / f"system-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.ext4"
    if disk.exists():
        disk.touch()
        return disk
    for old in cache.glob("system-*.ext4"):
        if time.time() - old.stat().st_mtime > OLD_S:
            old.unlink()
    print(f"making the guests' system disk from {len(packages)} packages of this machine", flush=True)
    tree = fresh(cache / "tree")
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "sys", "run", "tmp", "root", "etc", "mnt", "var/tmp", "agentnic", "usr/lib/modules"):
        (tree / name).mkdir(parents=True)
    names = "\0".join(files_of(sorted(packages)))
    pack = subprocess.Popen(["tar", "-C", "/", "--null", "--no-recursion", "-T", "-", "-cf", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    unpack = subprocess.Popen(["tar", "-C", tree, "--keep-directory-symlink", "-xf", "-"], stdin=pack.stdout)
    pack.stdout.close()
    pack.stdin.write(names.encode())
    pack.stdin.close()
    said = pack.stderr.read().decode(errors="replace")
    if unpack.wait() != 0 or pack.wait() != 0:
        raise Trouble(f"copy the packages' files: {said.strip()}")
    (tree / "usr/bin/awk").symlink_to("mawk")  # not the alternative that this machine has chosen
    make_disk(tree, disk, spare_mib=64)
    shutil.rmtree(tree)
    return disk


def project_disk(folder):
    """The disk with what is tested, without debug sections. Returns its path."""
    tree = fresh(folder / "tree")
    for name in PROJECT:
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("*.d", "*.o.tmp", "__pycache__"))
    for program in (tree / ".build/bin").iterdir():
        output_of(["strip", program])
    disk = folder / "project.ext4"
    make_disk(tree, disk, spare_mib=16)
    shutil.rmtree(tree)
    return disk
