"""What the tests of devices share: guests with disks and interfaces, images, a server of files, and
what must not be left behind."""

import hashlib
import http.server
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

from rig import PROMPT, READY, ROOT, Failure, expect, wait_for

TESTS = []


class Skip(Exception):
    """A test cannot run here."""


def test(function):
    TESTS.append((function.__name__, function))
    return function


def for_each_kernel(function):
    for kernel in ("cloud", "generic", "backports"):
        TESTS.append((f"{function.__name__}_{kernel}", lambda rig, kernel=kernel: function(rig, kernel)))
    return function


def need(program, package):
    if not shutil.which(program):
        raise Skip(f"{program} is not installed (package {package})")


def need_root(why):
    if os.geteuid() != 0:
        raise Skip(f"needs root to {why}")


def archive_or_skip():
    """Skips a test where no packages can be fetched: apt's own attempt fails."""
    done = subprocess.run(["mmdebstrap", "--simulate", "--mode=root" if os.geteuid() == 0 else "--mode=fakechroot",
        "--variant=essential", "bookworm", "/dev/null"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"no archive of packages: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


class Guest:
    """A domain with devices, and its shell."""

    def __init__(self, rig, name, **keys):
        self.rig, self.name = rig, named(rig, name)
        self.killed, self.logged = False, len(self.log())
        self.terminal = rig.console("create", "-c", configuration(rig, name, **keys))
        self.settle()

    def settle(self):
        try:
            self.terminal.until(READY, 60)
            self.terminal.until(PROMPT, 30)
        except BaseException:
            self.terminal.kill()
            raise

    def sh(self, line, seconds=30, good=True):
        """Runs a line and returns what it prints; its status must be 0 (or not, if `good` is
        false)."""
        # The line's echo does not look like the marks.
        self.terminal.type(f"echo =ou''t; {line}; echo =en''d$?\n")
        found = self.terminal.until(r"(?s)=out\n(.*?)=end(\d+)\n", seconds)
        self.terminal.until(PROMPT)
        status = int(found[2])
        expect((status == 0) == good, f"in the guest, '{line}' ended with {status}: {found[1][-600:]}")
        return found[1]

    def start(self, line):
        """Starts a line; `finish` waits for its end."""
        self.terminal.type(f"{line}; echo =en''d$?\n")

    def finish(self, pattern, seconds=60):
        found = self.terminal.until(rf"(?s){pattern}\n=end(\d+)\n", seconds)
        self.terminal.until(PROMPT)
        return found

    def wait_until(self, line, message, seconds=15):
        wait_for(lambda: self.sh(f"{line} && echo =yes || true").startswith("=yes"), seconds, message)

    def reboot(self, line="reboot"):
        """The line makes the guest reboot, and the domain starts anew (`on_reboot`)."""
        number = self.number()
        self.terminal.type(f"{line}\n")
        self.terminal.end(60)
        wait_for(lambda: self.name in self.rig.names() and self.number() != number, 30, "the domain does not restart")
        self.terminal = self.rig.console("console", self.name)
        self.settle()

    def off(self):
        self.terminal.type("poweroff\n")
        code = self.terminal.end(60)
        expect(code == 0, f"xm create -c ended with {code} after the domain powered off")
        self.rig.gone(self.name)
        # The guest may have noticed nothing of it.
        ends = re.findall(r"the backend of .* ended.*", self.log()[self.logged:])
        expect(self.killed or not ends, f"a backend died by itself: {ends}")

    def log(self):
        log = self.rig.work / f"log/{self.name}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def number(self):
        return self.rig.must("domid", self.name).strip()

    def pids(self, program):
        """Processes of the domain by their program's name."""
        return [pid for pid, comm in self.rig.family(self.name).items() if comm.split(".")[0] == program]

    def kill(self, program, how=signal.SIGKILL):
        """Kills processes of the domain by their program's name, as a bad day would; returns their numbers."""
        pids = self.pids(program)
        expect(pids, f"the domain has no process {program}: {self.rig.family(self.name)}")
        self.killed = True
        for pid in pids:
            os.kill(pid, how)
        return pids

    def another(self, program, gone):
        """Waits for a process that takes the place of those that are `gone`: they may be seen for a while, as what
        they had under way has to end first."""
        wait_for(lambda: set(self.pids(program)) - set(gone), 10, f"no other {program} was started")


def named(rig, name):
    """A domain's name that no other run of the tests has, so that its processes can be told."""
    return f"{name}-{rig.work.name[3:]}"


def configuration(rig, name, **keys):
    values = {"ramdisk": str(rig.base / "devices.cpio"), "extra": f"console=hvc0 quiet hostname={name}", **keys}
    return rig.config(named(rig, name), **values)


def with_agent(rig):
    """An initramfs with the agent of `xm exec`."""
    path = rig.base / "agent.cpio"
    if not path.exists():
        binary = rig.base / "libexec/xenolith/xenguest"
        subprocess.run([str(ROOT / "scripts/make-initramfs"), str(path), f"{binary}=/bin/xenguest"],
            check=True, capture_output=True)
        path.chmod(0o644)
    return str(path)


def image(rig, name, megabytes, ext4=False):
    """A sparse image file, with an empty file system if wanted."""
    path = rig.work / name
    with open(path, "wb") as file:
        file.truncate(megabytes << 20)
    if ext4:
        make_ext4(path)
    return path


def make_ext4(path):
    tool = shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    if not tool:
        raise Skip("mkfs.ext4 is not installed (package e2fsprogs)")
    subprocess.run([tool, "-q", "-F", str(path)], check=True, capture_output=True)


def check_ext4(path):
    """The file system in an image or device, which was unmounted, is whole."""
    tool = shutil.which("e2fsck") or "/sbin/e2fsck"
    done = subprocess.run([tool, "-f", "-n", str(path)], capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"e2fsck: {done.stdout[-600:]}{done.stderr[-200:]}")


def make_qcow2(path, megabytes, backing="", backing_format=""):
    """An empty qcow2 image of version 3 (QEMU's docs/interop/qcow2.txt): header, table of reference
    counts, reference counts, first table of addresses."""
    name, kind = str(backing).encode(), backing_format.encode()
    extensions = b""
    if kind:
        extensions = struct.pack(">II", 0xE2792ACA, len(kind)) + kind + bytes(-len(kind) % 8)
    extensions += bytes(8)
    cluster = 1 << 16
    tables = -(-(megabytes << 20) // (cluster // 8 * cluster))
    header = struct.pack(">IIQIIQIIQQIIQ", 0x514649FB, 3, (104 + len(extensions)) if name else 0, len(name), 16, megabytes << 20, 0,
        tables, 3 * cluster, cluster, 1, 0, 0) + struct.pack(">QQQII", 0, 0, 0, 4, 104) + extensions + name
    clusters = [header, struct.pack(">Q", 2 * cluster), struct.pack(">4H", 1, 1, 1, 1), b""]
    path.write_bytes(b"".join(part.ljust(cluster, b"\0") for part in clusters))
    return path


# Clusters that a killed backend may leave: of a ring's 32 requests, each of 128 KiB in three clusters at most.
MOST_LEAKED = 32 * 3


def check_qcow2(path, killed=False):
    """Asks QEMU's tool, where there is one, whether an image is whole. A backend that was `killed` may have
    left clusters that it had counted and nothing names yet, as QEMU does: they are looked for, and freed."""
    if shutil.which("qemu-img"):
        check = ["qemu-img", "check", *(["-r", "leaks"] if killed else []), str(path)]
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        expect(done.returncode == 0, f"{' '.join(check[:-1])}: {done.stdout}{done.stderr}")
        lost = re.search(r"(\d+) leaked clusters", done.stdout)
        expect(not lost or int(lost[1]) <= MOST_LEAKED, f"more than requests that were under way: {done.stdout}")


def random_file(path, size):
    path.write_bytes(os.urandom(size))
    return path


def md5(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() if hasattr(hashlib, "file_digest") else \
            hashlib.md5(file.read()).hexdigest()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing, and lets the other side close first: when both do so at once and segments are sent
    again, passt of 2023 looks for data that will not come without end (recvmsg(MSG_PEEK) = 0)."""

    def log_message(self, *_):
        pass

    def finish(self):
        time.sleep(0.2)
        super().finish()


class FileServer:
    """Serves the files of a folder at the loopback address, each by its name."""

    def __init__(self, folder):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
            lambda *arguments: Quiet(*arguments, directory=str(folder)))
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Namespace:
    """A network of its own, with a bridge, in which the rig's commands run."""

    ADDRESS = "10.98.76.1"

    def __init__(self, rig):
        need_root("make a network namespace")
        need("nsenter", "util-linux")
        need("ip", "iproute2")
        self.rig = rig

    def __enter__(self):
        self.process = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo there; exec sleep 3600"],
            stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        self.prefix = ["nsenter", "--target", str(self.process.pid), "--net"]
        for words in (("link", "set", "lo", "up"), ("link", "add", "xtest", "type", "bridge"),
                ("address", "add", f"{self.ADDRESS}/24", "dev", "xtest"), ("link", "set", "xtest", "up")):
            self.run("ip", *words)
        # Domains live where their daemon does.
        self.rig.end_daemon()
        self.rig.prefix = self.prefix
        return self

    def run(self, *words):
        return subprocess.run([*self.prefix, *words], check=True, capture_output=True, text=True, timeout=60).stdout

    def links(self):
        return re.findall(r"^\d+: ([^:@]+)", self.run("ip", "-o", "link"), re.M)

    def __exit__(self, *_):
        self.rig.destroy_all()
        self.rig.end_daemon()
        self.rig.prefix = []
        self.process.kill()
        self.process.wait()


# What must be gone when the domains are.


def store_list(rig, path):
    """Names below a node of the rig's store (Xen's io/xs_wire.h: XS_DIRECTORY); none without a store."""
    with socket.socket(socket.AF_UNIX) as store:
        store.settimeout(10)
        try:
            store.connect(str(rig.work / "run/xenstored/socket"))
            payload = path.encode() + b"\0"
            store.sendall(struct.pack("<IIII", 1, 1, 0, len(payload)) + payload)
            header = store.recv(16, socket.MSG_WAITALL)
            kind, _, _, length = struct.unpack("<IIII", header)
            answer = store.recv(length, socket.MSG_WAITALL) if length else b""
        except (OSError, struct.error):
            return []
    return [] if kind == 16 else sorted(name.decode() for name in answer.split(b"\0") if name)


def backends(rig):
    """The backend nodes of all devices: `vbd/3`."""
    base = "/local/domain/0/backend"
    return [f"{kind}/{domain}" for kind in store_list(rig, base) for domain in store_list(rig, f"{base}/{kind}")]


def helpers(rig):
    """Processes of this rig that serve devices, even if they have lost their domain."""
    ours = [str(rig.work / "run").encode(), rig.work.name[3:].encode()]
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            comm = (entry / "comm").read_text().strip()
            if comm.split(".")[0] not in ("xenblock", "xennet", "xenchannel", "passt", "space-keeper", "xendomain"):
                continue
            # What nobody has waited for yet is no process any more.
            if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                continue
            told = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        try:
            told += (entry / "environ").read_bytes()
        except OSError:
            pass  # those that hide it have the domain's name as an argument, or a parent that has
        if any(word in told for word in ours):
            found.append(f"{comm} {entry.name}")
    return found


def records(rig):
    """Records of images and MAC addresses in use."""
    return [str(path.relative_to(rig.work / "run")) for folder in ("locks", "macs")
        for path in sorted((rig.work / "run" / folder).glob("*"))]


def nothing_is_left(rig, seconds=10):
    for what, left in (("processes", helpers), ("locks", records), ("nodes", backends)):
        try:
            wait_for(lambda: not left(rig), seconds, "")
        except Failure as late:
            raise Failure(f"{what} are left behind: {left(rig)}") from late


def refused(rig, words, name="bad", **keys):
    """`xm create` says no, in these words, and leaves nothing behind."""
    known = rig.names(), records(rig), backends(rig), helpers(rig)
    code, _, err = rig.run("create", configuration(rig, name, **keys))
    expect(0 < code < 128, f"create ended with {code}")
    expect(re.search(words, err), f"the message does not say {words!r}: {err!r}")
    expect("panicked" not in err, f"a panic: {err!r}")
    # What an earlier domain leaves may go meanwhile.
    now = lambda: (rig.names(), records(rig), backends(rig), helpers(rig))
    wait_for(lambda: all(set(left) <= set(before) for left, before in zip(now(), known)), 10,
        f"something is left of a refused domain: {known} became {(rig.names(), records(rig), backends(rig), helpers(rig))}")
    return err
