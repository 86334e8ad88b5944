# SPDX-License-Identifier: Apache-2.0
"""The kernels and virtme-ng: found in Debian's suites, downloaded by exact name, unpacked into the cache.

apt does the fetching and the checking (signed index, then hashes), with lists and settings of its own in the
cache, so this needs no root and changes nothing of the machine. What the cache has is used as it is.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil

from base import CACHE, Trouble, Unreachable, fresh, make_disk, output_of

TABLE = pathlib.Path(os.environ.get("AGENTNIC_KERNELS") or pathlib.Path(__file__).with_name("kernels.txt"))
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What else guests need, and its suite. virtme-ng 1.35 of Debian 13 panics on 7.3; 1.41 is pure Python and runs on Debian 12.
# busybox-static is not installed: it conflicts with the busybox that many machines have.
TOOLS = {"virtme-ng": "forky", "busybox-static": "bookworm"}
UNREACHABLE = re.compile(r"Could not (resolve|connect)|Temporary failure|Connection (timed out|refused|failed)|Network is unreachable|Unable to connect")
# Drivers that no guest has devices for: two thirds of the modules.
PRUNED = ("kernel/sound", "kernel/drivers/gpu", "kernel/drivers/media", "kernel/drivers/net/wireless", "kernel/drivers/iio",
          "kernel/drivers/staging", "kernel/drivers/hwmon", "kernel/drivers/scsi", "kernel/drivers/usb", "kernel/drivers/input")
# What a guest loads before it can read its disks.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "ext4")


@dataclasses.dataclass
class Kernel:
    """A line of kernels.txt, and where its files are once it is fetched."""
    version: str
    metapackage: str
    suite: str
    why: str

    @property
    def folder(self):
        return CACHE / "kernels" / self.version

    @property
    def release(self):
        """What uname -r says in it."""
        return json.loads((self.folder / "fetched.json").read_text())["release"]

    @property
    def image(self):
        return self.folder / "root" / "boot" / f"vmlinuz-{self.release}"


def kernels():
    """All lines of kernels.txt."""
    listed = []
    for number, line in enumerate(TABLE.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split(None, 3)
        if len(words) < 4 or not re.fullmatch(r"[0-9.]+", words[0]):
            raise Trouble(f"{TABLE.name}:{number}: not a line 'version metapackage suite why'")
        listed.append(Kernel(*words))
    return listed


def mirror():
    """Where this machine gets Debian from."""
    text = output_of(["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages", "Origin: Debian"])
    for line in text.splitlines():
        codename, uri = line.split()
        if codename in ("bookworm", "trixie"):
            return uri
    raise Trouble("apt knows no Debian mirror", "add a source for Debian 12 or 13, then: apt-get update")


class Suite:
    """One suite of Debian, seen by an apt with settings of its own."""

    def __init__(self, name):
        self.name = name
        self.folder = CACHE / "apt" / name
        for part in ("lists/partial", "cache/archives/partial"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {name} main\n")
        (self.folder / "apt.conf").write_text("".join(f'{key} "{value}";\n' for key, value in {
            "Dir::Etc::SourceList": self.folder / "sources.list", "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null", "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": self.folder / "lists", "Dir::State::Status": "/dev/null", "Dir::Cache": self.folder / "cache",
            "Acquire::Languages": "none", "Acquire::Retries": "3", "APT::Sandbox::User": "", "APT::Update::Error-Mode": "any",
        }.items()))
        self.apt(["apt-get", "-q", "update"])

    def apt(self, argv, **options):
        try:
            return output_of(argv, env=os.environ | {"APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C"}, **options)
        except Trouble as trouble:
            # Only silence is nobody's mistake: a wrong signature or a full disk is trouble.
            raise Unreachable(str(trouble)) if UNREACHABLE.search(str(trouble)) else trouble

    def field(self, package, field):
        """A field of the newest version of exactly this package; nothing when it lacks the field."""
        try:
            record = self.apt(["apt-cache", "show", "--no-all-versions", package])
        except Trouble as trouble:
            raise Trouble(f"there is no package {package} in Debian's suite {self.name}") from trouble
        found = re.search(rf"^{field}: (.*)$", record, re.MULTILINE)
        return found.group(1) if found else ""

    def bound_to(self, package):
        """This package and those that it depends on in one exact version: {name: version}."""
        found, waiting = {}, [package]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self.field(name, "Version")
                waiting += re.findall(r"(?:^|, )([a-z0-9.+-]+) \(= [^)]+\)", self.field(name, "Depends"))
        return found

    def download(self, packages, folder):
        """Fetches {name: version}, under these exact names. apt checks each file against the signed index."""
        self.apt(["apt-get", "-q", "download", *(f"{name}={version}" for name, version in packages.items())], cwd=folder)
        files = sorted(folder.glob("*.deb"))
        if len(files) != len(packages):
            raise Trouble(f"apt downloaded {len(files)} files for {len(packages)} packages of {self.name}")
        return files


def unpack(files, folder):
    for file in files:
        output_of(["dpkg", "-x", file, folder])
        file.unlink()


def fetched(folder, recipe, make, refresh=False):
    """The folder, made by make(part) unless it is there, of this recipe; whole, or as it was before."""
    note = folder / "recipe.json"
    wanted = json.loads(json.dumps(recipe))
    if refresh or not note.exists() or json.loads(note.read_text()) != wanted:
        part = fresh(folder.with_name(folder.name + ".part"))
        make(part)
        (part / "recipe.json").write_text(json.dumps(recipe) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return folder


def get_tools(refresh=False):
    """Fetches virtme-ng and busybox, unless the cache has them; their folder."""
    def make(part):
        for name, suite_name in TOOLS.items():
            suite = Suite(suite_name)
            packages = {name: suite.field(name, "Version")}
            print(f"fetching {name} {packages[name]} of {suite_name}", flush=True)
            unpack(suite.download(packages, part), part)
    return fetched(CACHE / "tools", TOOLS, make, refresh)


def get_kernel(kernel, refresh=False):
    """Fetches a kernel, unless the cache has it."""
    def make(part):
        suite = Suite(kernel.suite)
        packages = {name: version for name, version in suite.bound_to(kernel.metapackage).items() if re.search(r"-[0-9]", name)}
        image = next((name for name in packages if name.startswith("linux-image-")), None)
        if not image:
            raise Trouble(f"{kernel.metapackage} of {kernel.suite} depends on no linux-image package")
        release = image.removeprefix("linux-image-")
        if not re.match(re.escape(kernel.version) + r"[.-]", release):
            raise Trouble(f"{kernel.metapackage} of {kernel.suite} is now {release}, not {kernel.version}", f"mend {TABLE.name}")
        print(f"fetching kernel {kernel.version}: {image} {packages[image]} of {kernel.suite}", flush=True)
        root = part / "root"
        root.mkdir()
        unpack(suite.download(packages, part), root)
        lay_out(root, release)
        collect_boot_modules(part / "boot-modules", root, release)
        make_disk(root / "lib" / "modules", part / "modules.ext4", spare_mib=4)
        (part / "fetched.json").write_text(json.dumps({"release": release, "suite": kernel.suite, "packages": packages}, indent=2) + "\n")
    return fetched(kernel.folder, [kernel.metapackage, kernel.suite, PRUNED, BOOT_MODULES], make, refresh)


def lay_out(root, release):
    """Old and new packages alike: /boot/vmlinuz-RELEASE and /lib/modules/RELEASE, with what depmod makes."""
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    modules = root / "lib" / "modules" / release
    image = root / "boot" / f"vmlinuz-{release}"
    image.parent.mkdir(exist_ok=True)
    if (modules / "vmlinuz").exists():
        (modules / "vmlinuz").rename(image)
    if not image.exists():
        raise Trouble(f"the packages of {release} hold no vmlinuz")
    for folder in PRUNED:
        shutil.rmtree(modules / folder, ignore_errors=True)
    output_of(["/sbin/depmod", "-b", root, release])


def collect_boot_modules(folder, root, release):
    """The modules that a guest loads first, plain, in the order of their names."""
    folder.mkdir()
    needed = []
    for module in BOOT_MODULES:
        for line in output_of(["/sbin/modprobe", "-d", root, "-S", release, "--show-depends", module]).splitlines():
            verb, _, path = line.partition(" ")
            if verb == "insmod" and path.strip() not in needed:
                needed.append(path.strip())
    for number, path in enumerate(needed):
        copy = folder / f"{number:02}-{os.path.basename(path)}"
        shutil.copy(path, copy)
        if copy.suffix == ".xz":
            output_of(["xz", "-d", copy])
