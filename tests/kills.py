"""Processes that are killed at each of their points (crate kill_point): what leads there, and what must
hold afterwards."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from lab import check_qcow2, make_qcow2, store_list
from rig import PATIENCE, ROOT, DaemonConnection, Failure, Rig, expect, wait_for

CALL = re.compile(r"(?<!fn )\b(?:kill_point|kill_point_of|kill_backend)\(([^;]*?)\)(?:;|,\n)", re.S)
FLOWS = []
# Programs of ours, and what they start.
OURS = ("xend", "xendomain", "xenstored", "xm", "xenblock", "xennet", "space", "space-keeper", "passt", "passt.avx2")
# What the daemon and the store keep between two domains.
KEPT = {"lock", "next-domid", "domains", "empty", "locks", "macs", "xend/lock", "xend/start.lock", "xend/socket", "xenstored/lock",
    "xenstored/start.lock", "xenstored/socket", "xenstored/domains.sock", "xenstored/journal", "xend", "xenstored"}
MAC = "00:16:3e:6b:69:6c"


def points():
    """Every point, from the sources."""
    found = []
    for source in sorted((ROOT / "crates").glob("*/src/**/*.rs")):
        if source.is_relative_to(ROOT / "crates/kill_point"):
            continue
        for call in CALL.findall(source.read_text()):
            found += re.findall(r'"([a-z0-9.-]+)"', call)
    expect(len(found) == len(set(found)), f"points with one name: {sorted(p for p in found if found.count(p) > 1)}")
    return found


class Over(Exception):
    """The death has ended what the flow was about."""


class Unreachable(Exception):
    """The flow cannot run on this host."""


def flow(function):
    FLOWS.append(function)
    return function


class Life:
    """One run of a flow in directories of its own, with one death, or with none and a record of the
    points that were come to."""

    def __init__(self, rig, flow, point, late=0):
        self.base, self.flow, self.point = rig.base, flow, point
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="k.", dir="/tmp"))
        self.run, self.mark = self.work / "run", self.work / "mark"
        self.suffix = self.work.name[2:].replace("_", "x")
        self.plain = {**rig.environment, "XENOLITH_RUNTIME_DIR": str(self.run), "XENOLITH_STATE_DIR": str(self.work / "log")}
        self.deadly = {**self.plain, "XENOLITH_DIE_AT": f"{f'{point}@{late}' if point else '*'}:{self.mark}"}
        self.environment, self.prefix = self.deadly, []
        self.made, self.running, self.stored = {}, set(), set()
        self.network = None
        # The flow may leave a domain paused.
        self.stands_still = False
        # What else must hold in the end.
        self.also = []

    def name(self, name):
        return f"{name}-{self.suffix}"

    def died(self):
        return self.point is not None and self.mark.exists()

    def command(self, words):
        return [*self.prefix, str(self.base / "bin/xm"), *words]

    def call(self, *words, timeout=40, environment=None):
        done = subprocess.run(self.command(words), env=environment or self.environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=timeout * PATIENCE, check=False)
        expect("panicked" not in done.stderr, f"a panic: {done.stderr}")
        return done.returncode, done.stdout, done.stderr

    def xm(self, *words, fails=None, timeout=40):
        """A step of the flow: it succeeds, or somebody died: then it says why not, and is done again."""
        said = f"xm {' '.join(words)}"
        self.stands_still |= words[0] == "pause" or "-p" in words
        code, out, err = self.call(*words, timeout=timeout)
        if fails and code == 1 and re.search(fails, err):
            return out
        if code == 0 and not fails:
            return out
        expect(self.died(), f"{said} ended with {code}: {err.strip() or out.strip()}")
        killed = code == -signal.SIGKILL
        expect(killed or err.strip(), f"{said} ended with {code} and says nothing")
        # The daemon and the store are started anew by whoever needs them.
        expect(killed or not self.point.startswith(("xend.", "xenstored.")), f"{said} did not go through: {err.strip()}")
        time.sleep(0.05)
        code, out, again = self.call(*words, timeout=timeout)
        if code != 0:
            expect(again.strip(), f"{said}, again, ended with {code} and says nothing")
            raise Over(f"{said}: {err.strip()}; again: {again.strip()}")
        return out

    # Domains.

    def config(self, name, guest=True, **keys):
        values = {"kernel": str(self.base / "hostile"), "builder": "linux", "memory": 16, "name": self.name(name), "vcpus": 1,
            "extra": "test=guest", "on_crash": "destroy", **keys}
        path = self.work / f"{name}.cfg"
        path.write_text("".join(f"{key} = {value!r}\n" for key, value in values.items()))
        self.made[self.name(name)] = (str(path), guest)
        return str(path)

    def disk(self, name):
        path = self.work / f"{name}.img"
        with open(path, "wb") as file:
            file.truncate(4 << 20)
        return path

    def create(self, name, *options, **keys):
        self.xm("create", "-q", *options, self.config(name, **keys))
        self.running.add(self.name(name))

    def pid(self, name):
        for path in self.run.glob("domains/*/info.json"):
            text = path.read_text()
            if f'"{self.name(name)}"' in text:
                return int(re.search(r'"pid": (\d+)', text)[1])
        self.gone(f"{name} is not in the registry")

    def gone(self, why):
        """Something is not as the flow needs it."""
        if self.died():
            raise Over(why)
        raise Failure(why)

    def says(self, name, pattern, typed="", seconds=10, environment=None):
        """What a domain's console prints, or printed before."""
        process = subprocess.Popen(self.command(["console", "-q", self.name(name)]), env=environment or self.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        seen, end = b"", time.monotonic() + seconds * PATIENCE
        try:
            if typed:
                with contextlib.suppress(BrokenPipeError):
                    os.write(process.stdin.fileno(), typed.encode())
            while not re.search(pattern, seen.decode(errors="replace").replace("\r", "")):
                ready = select.select([process.stdout], [], [], max(0, end - time.monotonic()))[0]
                data = os.read(process.stdout.fileno(), 65536) if ready else b""
                if not data:
                    return False
                seen += data
            return True
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def hears(self, name, pattern, typed="", seconds=10):
        if self.says(name, pattern, typed, seconds):
            return
        if self.died() and self.says(name, pattern, typed, seconds):
            return
        self.gone(f"no {pattern!r} on the console of {name}")

    def processes(self, programs=OURS):
        """Numbers and names of this life's processes, those included that have lost their parents."""
        ours, found, spaces = str(self.run).encode(), {}, []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                comm = (entry / "comm").read_text().strip()
                if comm not in (*programs, "xendomain") or (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                    continue
                if comm == "space":
                    spaces.append(int(entry.name))  # it has let go of all that could name it
                    continue
                told = (entry / "cmdline").read_bytes()
                with contextlib.suppress(OSError):
                    told += (entry / "environ").read_bytes()
            except OSError:
                continue
            if ours in told or self.suffix.encode() in told:
                found[int(entry.name)] = comm
        found |= {pid: "space" for pid in spaces if Rig.parent(pid) in found}
        return {pid: comm for pid, comm in found.items() if comm in programs}

    def kill(self, program, how=signal.SIGKILL):
        pids = self.processes((program,))
        if not pids:
            self.gone(f"there is no {program}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)

    def end_daemon(self, how=signal.SIGTERM):
        for pid in self.processes(("xend",)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        wait_for(lambda: not self.processes(("xend",)), 10, "xend does not end")

    # What must hold.

    def check(self):
        """Everything is in order, and goes on to be: in the words of the requirement."""
        self.environment = self.plain
        listed = self.listed()
        for name in list(listed):
            config = next((made for known, made in self.made.items() if name == known), None)
            short = name.removesuffix(f"-{self.suffix}")
            if config and config[1] and self.is_up(name):
                self.answers(short)
        for domain in self.asked("domains"):
            stored = self.asked(f"managed/{domain['uuid']}")["name"] if domain["managed"] else domain["name"]
            expect(stored == domain["name"], f"{domain['name']} is stored as {stored}")
        ends = {past["name"]: past["how"] for past in self.asked("history")}
        for name in sorted(self.running - set(listed)):
            expect(ends.get(name), f"{name} is gone, and nobody knows why: {ends}")
        for name in listed:
            code, _, err = self.call("destroy", name)
            expect(code == 0 or "does not exist" in err or "is not started" in err, f"xm destroy: {err}")
        for name in self.listed():
            self.must("delete", name)
        for name, (path, guest) in self.made.items():
            self.must("create", "-q", *([] if guest else ["-p"]), path)
            short = name.removesuffix(f"-{self.suffix}")
            if guest:
                self.answers(short)
            self.must("destroy", name)
        for good in self.also:
            good()
        self.nothing_is_left()

    def is_up(self, name):
        row = [row for row in self.must("list").splitlines() if row.split()[:1] == [name]]
        return bool(row) and len(row[0].split()) == 6 and row[0].split()[1].isdigit() and row[0].split()[-2][3] not in "s" \
            and "c" not in row[0].split()[-2]

    def answers(self, name):
        if self.stands_still:
            self.call("unpause", self.name(name))
        end = time.monotonic() + 15 * PATIENCE
        while not self.says(name, r"pong\n", "ping\n", 5):
            expect(time.monotonic() < end, f"{name} does not answer on its console")
            time.sleep(0.05)

    def must(self, *words):
        code, out, err = self.call(*words)
        expect(code == 0, f"afterwards, xm {' '.join(words)} ended with {code}: {err.strip()}")
        return out

    def listed(self):
        rows = self.must("list").splitlines()[1:]
        return [row.split()[0] for row in rows if row.split()[0] != "Domain-0"]

    def asked(self, what):
        """What the daemon tells."""
        connection = DaemonConnection(self.run)
        connection.request("GET", f"/v1/{what}")
        return json.loads(connection.getresponse().read())

    def files(self):
        return {str(path.relative_to(self.run)) for path in self.run.rglob("*")} - KEPT

    def nodes(self):
        domains = [name for name in store_list(self, "/local/domain") if name != "0"]
        kinds = store_list(self, "/local/domain/0/backend")
        return domains + store_list(self, "/vm") + [f"{kind}/{domid}" for kind in kinds for domid in
            store_list(self, f"/local/domain/0/backend/{kind}")]

    def left(self):
        strangers = [f"{name} {pid}" for pid, name in self.processes().items() if name not in ("xend", "xenstored")]
        links = [] if self.network is None else [link for link in self.network.links() if link not in self.network.before]
        here = [path.name for path in self.work.iterdir() if path.name not in ("run", "log", "mark") and path.suffix not in (".cfg", ".img",
            ".core")]
        drafts = [path.name for path in (self.work / "log").rglob("*") if path.suffix in (".new", ".partial")]
        locked = [f"a lock on {path.name}" for path in self.work.glob("*.img") if is_locked(path)]
        return strangers + orphans() + sorted(self.files()) + self.nodes() + links + here + drafts + locked

    def nothing_is_left(self):
        try:
            wait_for(lambda: not self.left(), 10, "")
        except Failure as late:
            raise Failure(f"left behind: {self.left()}") from late
        self.end_daemon()
        for pid in self.processes(("xenstored",)):
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.processes(), 10, "processes are left")

    def close(self):
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.network:
            self.network.close()
        shutil.rmtree(self.work, ignore_errors=True)


def is_locked(path):
    """Whether somebody uses an image (`F_OFD_SETLK`, fcntl(2))."""
    with open(path, "r+b") as file:
        try:
            fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError:
            return True
    return False


def orphans():
    """Spaces that have outlived their domain's process, whosever they are."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text() == "space\n" and (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                parent = Rig.parent(int(entry.name))
                if pathlib.Path(f"/proc/{parent}/comm").read_text() not in ("xendomain\n", "devices\n"):
                    found.append(f"space {entry.name} without its domain's process")
    return found


class Network:
    """A network of its own for all that a life starts."""

    def __init__(self, life):
        if os.geteuid() != 0 or not shutil.which("nsenter") or not shutil.which("ip"):
            raise Unreachable("needs root, nsenter and ip")
        self.process = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo there; exec sleep 3600"], stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        life.prefix, life.network = ["nsenter", "--target", str(self.process.pid), "--net"], self
        self.prefix = life.prefix
        for words in (("link", "set", "lo", "up"), ("link", "add", "up0", "type", "veth", "peer", "name", "far0"),
                ("link", "set", "far0", "up"), ("link", "set", "up0", "up"), ("address", "add", "10.9.8.2/24", "dev", "up0"),
                ("route", "add", "default", "via", "10.9.8.1", "dev", "up0"), ("link", "add", "xtest", "type", "bridge"),
                ("link", "set", "xtest", "up")):
            self.ip(*words)
        self.before = self.links()

    def ip(self, *words):
        return subprocess.run([*self.prefix, "ip", *words], check=True, capture_output=True, text=True, timeout=60).stdout

    def links(self):
        return re.findall(r"^\d+: ([^:@]+)", self.ip("-o", "link"), re.M)

    def state(self):
        return self.ip("-o", "-4", "address", "show", "up0").split()[3:4], self.ip("route", "show", "default").split()[:5]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


# What leads to the points. Each is a day in the life of a domain or two.


@flow
def looks(life):
    life.xm("list")
    life.end_daemon()
    life.xm("list")


@flow
def paused(life):
    life.create("one", "-p", guest=False)
    life.xm("destroy", life.name("one"))


@flow
def orders(life):
    life.create("one", "-p")
    life.xm("unpause", life.name("one"))
    life.hears("one", r"ready\n")
    life.xm("pause", life.name("one"))
    life.xm("unpause", life.name("one"))
    life.xm("mem-set", life.name("one"), "12")
    life.hears("one", r"pong\n", "ping\n")
    life.xm("shutdown", "-w", life.name("one"))


@flow
def stored(life):
    life.xm("new", "-q", life.config("one"))
    life.xm("config-update", life.name("one"), "memory=18")
    life.xm("start", "-p", life.name("one"))
    life.running.add(life.name("one"))
    life.xm("destroy", life.name("one"))
    life.xm("delete", life.name("one"))


@flow
def failing(life):
    life.config("good", guest=False)
    path = life.config("bad")
    pathlib.Path(path).write_text(pathlib.Path(path).read_text().replace("/hostile'", "/no-such-kernel'"))
    del life.made[life.name("bad")]
    life.xm("create", "-q", path, fails="no-such-kernel")


def begin(life):
    """A start that takes its time."""
    slow = life.work / "slow.cfg"
    program = life.base / "libexec/xenolith/xendomain"
    slow.write_text(f"#!/bin/sh\nsleep 0.5\nexec {program}\n")
    slow.chmod(0o755)
    path = life.config("one")
    life.xm("list")
    process = subprocess.Popen(life.command(["create", "-q", path]), env={**life.environment, "XENOLITH_XENDOMAIN": str(slow)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log = life.work / "log/xend.log"
    wait_for(lambda: process.poll() is not None or "starting domain" in log.read_text(), 20, "it does not start")
    time.sleep(0.1)
    return process


@flow
def interrupted(life):
    process = begin(life)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40 * PATIENCE)


@flow
def abandoned(life):
    process = begin(life)
    process.kill()
    process.communicate()
    life.xm("list")


@flow
def console(life):
    life.stands_still = True  # until the console is attached
    process = subprocess.Popen(life.command(["create", "-q", "-c", life.config("one")]), env=life.environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    life.running.add(life.name("one"))
    try:
        end = time.monotonic() + 10 * PATIENCE
        while process.poll() is None and not select.select([process.stdout], [], [], 0.1)[0]:
            expect(time.monotonic() < end, "nothing on the console")
    finally:
        process.kill()
        process.communicate()
    if life.died() and life.name("one") not in life.listed():
        # Whoever kills xm before the domain runs calls it off.
        life.running.discard(life.name("one"))
        raise Over("not started")
    life.xm("unpause", life.name("one"))
    life.hears("one", r"pong\n", "ping\n")


def wait_connected(life, disk="51712", vif="0"):
    if disk:
        life.hears("one", rf"vbd {disk} connected\n")
    if vif:
        life.hears("one", rf"vif {vif} connected\n")


def need_passt():
    if not shutil.which("passt"):
        raise Unreachable("needs passt")


@flow
def devices(life):
    need_passt()
    life.create("one", disk=[f"file:{life.disk('a')},xvda,w"], vif=[f"mac={MAC}"])
    wait_connected(life)
    life.xm("top", "-b", "-i", "1")
    life.xm("shutdown", "-w", life.name("one"))


@flow
def bad_disk(life):
    """Its header is good enough for the domain's process, and no more."""
    life.create("one")
    image = make_qcow2(life.work / "bad.img", 4)
    with open(image, "r+b") as file:
        file.seek(40)
        file.write(struct.pack(">Q", 0x30200))
    life.xm("block-attach", life.name("one"), f"tap:qcow2:{image}", "xvdb", "w", fails=".")


@flow
def disks_come_and_go(life):
    life.create("one")
    disk = life.disk("a")
    life.hears("one", r"ready\n")
    life.xm("block-attach", life.name("one"), f"file:{disk}", "xvda", "w")
    wait_connected(life, vif=None)
    with open(disk, "r+b") as file:
        file.truncate(8 << 20)
    life.xm("block-refresh", life.name("one"), "xvda")
    life.hears("one", r"vbd 51712 reopened\n", "reopen\n")
    life.xm("block-detach", life.name("one"), "xvda")
    life.hears("one", r"vbd 51712 closed\n")
    life.xm("block-attach", life.name("one"), f"file:{disk}", "xvda", "r")
    life.xm("block-detach", life.name("one"), "xvda")


@flow
def disks_grow(life):
    image = make_qcow2(life.work / "grows.img", 4)
    life.also.append(lambda: check_qcow2(image))
    life.create("one", disk=[f"tap:qcow2:{image},xvda,w"])
    wait_connected(life, vif=None)
    life.xm("block-resize", life.name("one"), "xvda", "8M")
    life.hears("one", r"vbd 51712 reopened\n", "reopen\n")
    life.xm("shutdown", "-w", life.name("one"))


@flow
def interfaces_come_and_go(life):
    need_passt()
    life.create("one")
    life.hears("one", r"ready\n")
    life.xm("network-attach", life.name("one"), f"mac={MAC}")
    wait_connected(life, disk=None)
    life.xm("network-detach", life.name("one"), "0")
    life.hears("one", r"vif 0 closed\n")


@flow
def torn_out(life):
    """A guest that stands still keeps its disk; it is taken from it."""
    life.create("one", disk=[f"file:{life.disk('a')},xvda,w"])
    wait_connected(life, vif=None)
    life.xm("pause", life.name("one"))
    life.xm("block-detach", life.name("one"), "xvda", "--force")


@flow
def backends_die(life):
    need_passt()
    life.create("one", disk=[f"file:{life.disk('a')},xvda,w"], vif=[f"mac={MAC}"])
    wait_connected(life)
    for program in ("xenblock", "xennet"):
        before = set(life.processes((program,)))
        life.kill(program)
        wait_for(lambda before=before, program=program: life.died() or set(life.processes((program,))) - before, 10, f"{program} stays away")
    time.sleep(0.3)
    life.hears("one", r"pong\n", "ping\n")


@flow
def network_dies(life):
    need_passt()
    life.create("one", vif=[f"mac={MAC}"])
    wait_connected(life, disk=None)
    for pid in life.processes(("passt", "passt.avx2")):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: life.died() or life.processes(("passt", "passt.avx2")), 10, "passt stays away")
    life.hears("one", r"pong\n", "ping\n")


@flow
def store_dies(life):
    life.create("one")
    life.hears("one", r"ready\n")
    life.kill("xenstored")
    time.sleep(0.3)
    life.xm("mem-set", life.name("one"), "12")
    life.xm("shutdown", "-w", life.name("one"))


@flow
def store_ends(life):
    life.create("one", "-p", guest=False)
    life.xm("destroy", life.name("one"))
    wait_for(lambda: life.died() or not life.processes(("xenstored",)), 15, "xenstored stays")


@flow
def much_in_the_store(life):
    """So much that the journal begins anew."""
    life.create("one")
    life.hears("one", r"ready\n")
    with contextlib.suppress(OSError, struct.error), socket.socket(socket.AF_UNIX) as store:
        store.settimeout(10)
        store.connect(str(life.run / "xenstored/socket"))
        payload = b"/tool/much\0" + b"x" * 3900
        for _ in range(300):
            store.sendall(struct.pack("<IIII", 11, 1, 0, len(payload)) + payload)
            header = store.recv(16, socket.MSG_WAITALL)
            store.recv(struct.unpack("<IIII", header)[3], socket.MSG_WAITALL)
    life.xm("destroy", life.name("one"))


@flow
def adopted(life):
    life.create("one")
    life.hears("one", r"ready\n")
    life.end_daemon(signal.SIGKILL)
    life.xm("list")
    life.hears("one", r"pong\n", "ping\n")
    life.end_daemon()
    life.xm("destroy", life.name("one"))


@flow
def missed(life):
    """A domain that dies while there is no daemon."""
    life.create("one", "-p", guest=False)
    time.sleep(0.1)
    life.end_daemon(signal.SIGKILL)
    os.kill(life.pid("one"), signal.SIGKILL)
    wait_for(lambda: not life.processes(("xendomain",)), 10, "xendomain lives")
    life.xm("list")


@flow
def reboots(life):
    life.create("one", on_reboot="restart")
    life.hears("one", r"ready\n")
    life.xm("reboot", "-w", life.name("one"))
    life.hears("one", r"pong\n", "ping\n")


@flow
def resets(life):
    life.create("one", disk=[f"file:{life.disk('a')},xvda,w"])
    life.hears("one", r"ready\n")
    life.xm("reset", life.name("one"))
    wait_connected(life, vif=None)


@flow
def crashes(life):
    life.create("one", on_crash="rename-restart", disk=[])
    life.hears("one", r"ready\n")
    before = life.pid("one")
    life.says("one", r"never", "crash\n", 1)
    wait_for(lambda: life.died() or any(f"{life.name('one')}-1" in path.read_text() for path in life.run.glob("domains/*/info.json")), 10,
        "it is not set aside")
    wait_for(lambda: life.died() or life.pid("one") != before, 10, "it does not start again")
    life.hears("one", r"pong\n", "ping\n")


@flow
def preserved(life):
    life.create("one", on_crash="preserve")
    life.hears("one", r"ready\n")
    life.says("one", r"never", "crash\n", 1)
    wait_for(lambda: life.died() or not life.is_up(life.name("one")), 10, "it does not crash")
    life.xm("destroy", life.name("one"))


@flow
def renamed(life):
    life.create("one")
    life.hears("one", r"ready\n")
    life.xm("rename", life.name("one"), life.name("two"))
    life.made[life.name("two")] = (life.config("two"), True)
    life.running = {life.name("two")}
    time.sleep(0.1)
    life.hears("two", r"pong\n", "ping\n")


@flow
def renamed_stored(life):
    life.xm("new", "-q", life.config("one"))
    life.xm("start", "-p", life.name("one"))
    life.running.add(life.name("one"))
    life.xm("rename", life.name("one"), life.name("two"))
    life.made[life.name("two")] = (life.config("two"), True)
    life.running = {life.name("two")}
    life.xm("destroy", life.name("two"))
    life.xm("rename", life.name("two"), life.name("three"))
    life.xm("delete", life.name("three"))


@flow
def dumped(life):
    life.create("one")
    life.hears("one", r"ready\n")
    life.xm("dump-core", life.name("one"), str(life.work / "one.core"))
    life.hears("one", r"pong\n", "ping\n")


@flow
def long_log(life):
    (life.work / "log").mkdir(mode=0o700)
    (life.work / f"log/{life.name('one')}.log").write_text("x" * 1023 + "\n")
    with open(life.work / f"log/{life.name('one')}.log", "a") as log:
        log.write(("y" * 1023 + "\n") * 1024)
    life.create("one", "-p", guest=False)
    life.xm("destroy", life.name("one"))


@flow
def hung(life):
    """A process that does not listen is killed."""
    life.create("one", "-p", guest=False)
    os.kill(life.pid("one"), signal.SIGSTOP)
    life.xm("destroy", life.name("one"), timeout=60)


@flow
def tap(life):
    Network(life)
    life.create("one", vif=[f"bridge=xtest,mac={MAC}"])
    wait_connected(life, disk=None)
    life.xm("shutdown", "-w", life.name("one"))


@flow
def bridge(life):
    network = Network(life)
    before = network.state()

    def is_as_before():
        life.call("network-bridge", "stop", "bridge=xenbr0")
        expect(network.state() == before, f"the uplink had {before} and has {network.state()}")

    life.also.append(is_as_before)
    life.xm("network-bridge", "start", "bridge=xenbr0", "netdev=up0")
    life.xm("network-bridge", "stop", "bridge=xenbr0")


# How they are run.


def go(life):
    """Runs a flow to its end, or until the death leaves nothing to go on with."""
    try:
        life.flow(life)
    except Over:
        pass
    time.sleep(0.2)


def come_to(rig, flow):
    """The points that a flow comes to by itself, and how long it takes."""
    life, start = Life(rig, flow, None), time.monotonic()
    try:
        go(life)
        took = time.monotonic() - start
        found = set(life.mark.read_text().split())
        life.check()
        # What takes part in a race is the last resort.
        return found, took + (100 if flow in (interrupted, abandoned) else 0)
    finally:
        life.close()


def kill_at(rig, flow, point, late=0):
    """Runs a flow in which somebody dies at a point, or so many milliseconds later. False if nobody came there."""
    life = Life(rig, flow, point, late)
    try:
        go(life)
        with contextlib.suppress(Failure):
            wait_for(life.died, 2, "")
        died = life.died()
        life.check()
        return died
    except Exception as error:
        log = "".join(f"\n     {path.name}: {line}" for path in sorted((life.work / "log").glob("*.log"))
            for line in path.read_text(errors="replace").splitlines()[-5:])
        raise Failure(f"{error}{log}") from error
    finally:
        life.close()
