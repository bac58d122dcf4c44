"""The walls around the backends of disks and networks, and hosts that lack something."""

import os
import pathlib
import re
import sys

from lab import Guest, image, need, need_root, test
from rig import Rig, expect, wait_for

# System calls (asm/unistd_64.h) and errors (asm-generic/errno-base.h).
IO_URING = (425, 426, 427)
LANDLOCK = (444, 445, 446)
EPERM, ENOSYS = 1, 38
USER = 12345

# Executes a program with system calls that fail: a seccomp filter (linux/filter.h, linux/seccomp.h).
LACKING = """
import ctypes, os, struct, sys
errno, calls, command = int(sys.argv[1]), [int(n) for n in sys.argv[2].split(",")], sys.argv[3:]
code = [(0x20, 0, 0, 0)]
code += [(0x15, len(calls) - at, 0, number) for at, number in enumerate(calls)]
code += [(0x06, 0, 0, 0x7fff0000), (0x06, 0, 0, 0x50000 | errno)]
raw = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *one) for one in code))
program = struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(raw))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
if libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0):
    sys.exit("no filter: " + os.strerror(ctypes.get_errno()))
os.execvp(command[0], command)
"""


def status(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def family(guest, gone=()):
    """The domain's backends once they are confined: (name, process). Those that are `gone` are soon followed by others."""
    def found():
        each = [(name, pid) for name in ("xenblock", "xennet") for pid in guest.pids(name) if (name, pid) not in gone]
        return [(name, pid) for name, pid in each if status(pid)["Seccomp"].strip() == "2"]

    wait_for(lambda: len(found()) == 2, 10, "the domain has not one confined backend of each kind")
    return found()


@test
def backends_have_nothing(rig):
    """An empty root, no capability, no mount of the host's; also those that take the place of others."""
    need_root("look into processes that are closed to their own user")
    need("passt", "passt")
    guest = Guest(rig, "walled", vif=[""], disk=[f"file:{image(rig, 'walled.img', 8)},xvda,w"])
    jail = re.findall(r'msg=started jail="?([^"\n]*)', guest.log())[-1].split()
    gone = []
    for life in ("first", "second"):
        found = family(guest, gone)
        gone += found
        for name, pid in found:
            said = os.readlink(f"/proc/{pid}/fd/2")
            expect(said.startswith("pipe:"), f"{name} could write into a file: {said}")
            facts = status(pid)
            expect((facts["Seccomp"].strip(), facts["NoNewPrivs"].strip()) == ("2", "1"), f"{name}: {facts}")
            for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                expect(int(facts[kind], 16) == 0, f"{name} has capabilities: {kind} {facts[kind]}")
            if "empty-root" not in jail or "user-namespace" not in jail:
                print("note: this host gives no empty root to those who start a domain", flush=True)
                continue
            seen = os.listdir(f"/proc/{pid}/root")
            expect(seen == [], f"the root of {name} has {seen}")
            mounts = pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            expect(len(mounts) <= 1, f"{name} sees mounts: {mounts}")
            expect(os.readlink(f"/proc/{pid}/cwd") == "/", f"{name} works in {os.readlink(f'/proc/{pid}/cwd')}")
            for space in ("mnt", "net", "user"):
                ours, its = (os.readlink(f"/proc/{who}/ns/{space}") for who in ("self", pid))
                expect(ours != its, f"{name} is in our {space} namespace")
        guest.sh("dd if=/dev/zero of=/dev/xvda bs=4k count=16 conv=fsync 2>/dev/null")
        if life == "first":
            for name in ("xenblock", "xennet"):
                guest.kill(name)
            guest.sh("dd if=/dev/xvda of=/dev/null bs=4k count=16 iflag=direct 2>/dev/null")
            guest.wait_until("true", "the guest hangs")
    guest.off()


@test
def a_users_backends_have_nothing(rig):
    """The same for a domain of an ordinary user, whose namespaces are those that anybody may make."""
    need_root("become another user, and look into its processes")
    need("setpriv", "util-linux")
    its = Rig(rig.base)
    try:
        os.chown(its.work, USER, USER)
        its.prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
        its.environment["HOME"] = "/nonexistent"
        path = image(its, "users.img", 8)
        os.chown(path, USER, USER)
        guest = Guest(its, "users", disk=[f"file:{path},xvda,w"])
        jail = re.findall(r'msg=started jail="?([^"\n]*)', guest.log())[-1].split()
        pid, = guest.pids("xenblock")
        facts = status(pid)
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            expect(int(facts[kind], 16) == 0, f"it has capabilities: {kind} {facts[kind]}")
        if "user-namespace" in jail:
            expect(os.listdir(f"/proc/{pid}/root") == [], "the root is not empty")
            mounts = pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            expect(len(mounts) <= 1, f"it sees mounts: {mounts}")
        guest.off()
    finally:
        its.close()


def lacking(rig, name, errno, calls, means):
    guest = None
    rig.prefix = [sys.executable, "-c", LACKING, str(errno), ",".join(map(str, calls))]
    try:
        guest = Guest(rig, name, disk=[f"file:{image(rig, f'{name}.img', 8)},xvda,w"])
        guest.sh("dd if=/dev/urandom of=/tmp/sent bs=64k count=16 2>/dev/null && dd if=/tmp/sent of=/dev/xvda bs=64k conv=fsync 2>/dev/null")
        guest.sh("echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/xvda bs=64k count=16 2>/dev/null | cmp - /tmp/sent")
        expect(f"disks are served by {means}" in guest.log(), f"the log does not say {means}: {guest.log()[-800:]}")
        guest.off()
    finally:
        rig.prefix = []


@test
def without_io_uring(rig):
    """As with kernel.io_uring_disabled, and as on a kernel that has none."""
    lacking(rig, "eperm", EPERM, IO_URING, "threads")
    lacking(rig, "enosys", ENOSYS, IO_URING, "threads")


@test
def without_landlock(rig):
    """The other walls stand, and the domain's log does not claim more."""
    lacking(rig, "unlocked", ENOSYS, LANDLOCK, "")
    log = (rig.work / "log").glob("unlocked*.log")
    jail = re.findall(r'msg=started jail="?([^"\n]*)', next(log).read_text())[-1].split()
    expect("landlock" not in jail and "no-new-privileges" in jail, f"jail: {jail}")
