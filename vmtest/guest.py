# SPDX-License-Identifier: Apache-2.0
"""One guest: a kernel of the cache under virtme-ng, with its disks, devices and a job; watched until it ends."""

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

from base import CACHE, KERNEL_TROUBLE, Trouble
from profiles import PROFILES, namespace

QEMU = "qemu-system-x86_64"
HERE = pathlib.Path(__file__).parent
# Ends the whole group when the guest ends, and when this process does, however that happens: then the pipe closes.
WITH_US = 'exec 3<&0; "$@" </dev/null & guest=$!; { read -r _ <&3; kill -KILL -- -$$; } & wait $guest; kill -KILL -- -$$'


def accelerator(kernel):
    """('kvm' | 'tcg', why). Found out by letting the kernel start: /dev/kvm may be there and run nothing of Debian's."""
    if not os.path.exists("/dev/kvm"):
        return "tcg", "there is no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "/dev/kvm may not be used by this user"
    try:
        # timeout, not only Python's: it is there even when this process is not.
        said = subprocess.run(["timeout", "--signal=KILL", "30", QEMU, "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
                               "-kernel", kernel.image, "-append", "console=ttyS0 panic=-1"],
                              capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise Trouble(f"run {error.filename}: not found", "make deps") from error
    if b"Unable to mount root fs" in said.stdout:
        return "kvm", "the kernel starts under KVM"
    last = (said.stderr.decode(errors="replace").strip().splitlines() or ["the kernel does not get to its root device"])[0]
    return "tcg", f"KVM does not run this kernel: {last.removeprefix(QEMU + ': ')}"


def make_boot_tree(kernel, folder):
    """What the guest sees as its first root: see the program `init` there."""
    for name in ("dev", "proc", "sys", "run", "tmp"):
        (folder / name).mkdir(parents=True)
    shutil.copy(HERE / "init", folder / "init")
    # On a machine with merged /usr of Debian 13 or later it is in /usr/bin.
    shutil.copy(next(path for path in (CACHE / "tools/bin/busybox", CACHE / "tools/usr/bin/busybox") if path.exists()), folder / "busybox")
    shutil.copytree(kernel.folder / "boot-modules", folder / "modules")
    return folder


class Guest:
    """Starts at once; `out` is the folder that it shares with the host."""

    def __init__(self, kernel, accel, profiles, disks, out, job, settings, interactive=False):
        self.kernel, self.out, self.console = kernel, out, out / "console"
        (out / "job").write_text(job)
        (out / "settings").write_text("".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in
                                              (settings | {"AGENTNIC_PROFILES": " ".join(profiles)}).items()))
        boot = make_boot_tree(kernel, out / "boot")
        qemu = ["-no-reboot"]  # a panic ends the guest
        for disk in (*disks, kernel.folder / "modules.ext4"):
            qemu += ["-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
        qemu += ["-virtfs", f"local,path={out},mount_tag=out,security_model=none"]
        setup = []
        for name in profiles:
            qemu += PROFILES[name].qemu
            setup.append(PROFILES[name].setup)
        # The system's python3: virtme-ng is not for whatever else is first in the path.
        virtme = CACHE / "tools" / "usr"
        command = ["/usr/bin/python3", virtme / "bin/vng", "--run", kernel.image, "--root", boot, "--force-9p", "--busybox", boot / "busybox",
                   *(["--disable-kvm"] if accel == "tcg" else []), "--user", "root", "--cpus", "2", "--memory", "2G",
                   "--append", "init=/init", "--qemu-opts=" + " ".join(qemu), *([] if interactive else ["--verbose"])]
        if any(setup):
            command = [*namespace(), "bash", "-ec", "\n".join(setup) + '\nexec "$@"', "guest", *command]
        # virtme-ng keeps a folder in HOME that each guest may write to: not the user's.
        home = CACHE / "home"
        home.mkdir(exist_ok=True)
        environment = os.environ | {"HOME": str(home), "PYTHONPATH": str(virtme / "lib/python3/dist-packages"),
                                    "PATH": f"{virtme}/bin:/usr/bin:{os.environ['PATH']}:/usr/sbin:/sbin"}
        command = [str(word) for word in command]
        self.hung = ""
        if interactive:
            self.process = subprocess.Popen(command, env=environment, cwd=boot)
            return
        # A pipe, not the file itself: qemu opens what its output is a second time.
        self.process = subprocess.Popen(["bash", "-c", WITH_US, "guest", *command], env=environment, cwd=boot, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.reader = threading.Thread(target=self.read_console, daemon=True)
        self.reader.start()

    def read_console(self):
        with open(self.console, "wb", buffering=0) as file:
            while chunk := self.process.stdout.read1(65536):
                file.write(chunk.replace(b"\r", b""))

    def started(self):
        return (self.out / "started").exists()

    def running(self):
        return self.process.poll() is None

    def end(self, why=""):
        """Ends it now, with whatever it has started on this machine."""
        self.hung = self.hung or why
        if self.running():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join(timeout=5)
        shutil.rmtree(self.out / "boot", ignore_errors=True)

    def status(self):
        """The job's exit status; nothing when the guest did not get to its end."""
        try:
            return int((self.out / "status").read_text())
        except (OSError, ValueError):
            return None

    def console_text(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def last_words(self, lines=25):
        return "\n".join(self.console_text().splitlines()[-lines:])

    def kernel_trouble(self):
        """What is grave in the kernel's log; in what the console had of it when the guest did not get to its end."""
        log = self.out / "dmesg"
        text = log.read_text(errors="replace") if log.exists() else self.console_text()
        return [line for line in text.splitlines() if KERNEL_TROUBLE.search(line)]


def follow(guest, limits, each_line):
    """Calls each_line() with each line of the guest's events until it ends, or ends it at a limit.
    limits: {'start': s, 'silence': s, 'total': s}; without 'silence' it may be silent."""
    path, seen, begun = guest.out / "events", 0, time.monotonic()
    last_word = begun
    while True:
        alive = guest.running()  # asked before reading: what a guest says last is read too
        lines = path.read_bytes()[seen:] if path.exists() else b""
        for line in lines.split(b"\n")[:-1]:
            seen += len(line) + 1
            last_word = time.monotonic()
            each_line(line.decode(errors="replace"))
        now = time.monotonic()
        if not alive:
            break
        if not guest.started() and now - begun > limits["start"]:
            guest.end(f"it did not start in {limits['start']} s")
        elif now - last_word > limits.get("silence", limits["total"]):
            guest.end(f"it was silent for {limits['silence']} s")
        elif now - begun > limits["total"]:
            guest.end(f"it did not end in {limits['total']} s")
        time.sleep(0.3)
    guest.end()


def shell(kernel, accel, profiles, disks, out, settings):
    """A shell on the terminal, inside a guest."""
    if not sys.stdin.isatty():
        raise Trouble("SH=1 needs a terminal")
    guest = Guest(kernel, accel, profiles, disks, out, job="setsid -c bash -i </dev/ttyS0 >/dev/ttyS0 2>&1\n", settings=settings, interactive=True)
    return guest.process.wait()
