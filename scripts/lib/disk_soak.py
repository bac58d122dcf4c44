"""A disk's guest dies at random moments: what it said is on the disk must be there (scripts/soak).

Only processes die here, not the host: what they wrote and did not flush is still in its page cache.
"""

import os
import pathlib
import random
import re
import shutil
import subprocess
import time

from rig import PATIENCE, PROMPT, READY, Failure, expect, wait_for

MEGABYTES = 160
LONGEST = 1.5  # seconds of writing before the end comes
ACKNOWLEDGED = r"(?m)^ack (\d+) ([0-9a-f]{32})$"


class Disk:
    """An image, and what guests said is on it in the directory of the last round."""

    def __init__(self, rig, kind):
        self.rig, self.kind = rig, kind
        self.path = rig.work / f"soak.{kind}"
        self.checked = 0
        self.make()

    def make(self):
        """A new file system, of which nothing has been said."""
        self.acknowledged = {}
        raw = self.rig.work / "soak.raw"
        with open(raw, "wb") as file:
            file.truncate(MEGABYTES << 20)
        subprocess.run([tool("mkfs.ext4"), "-q", "-F", str(raw)], check=True, capture_output=True)
        if self.kind == "qcow2":
            convert(raw, self.path, "raw", "qcow2")
            raw.unlink()

    def boot(self):
        rig = self.rig
        entry = {"raw": "file:", "qcow2": "tap:qcow2:"}[self.kind] + f"{self.path},xvda,w"
        path = rig.config("soak-disk", ramdisk=str(rig.base / "devices.cpio"), memory=128, disk=[entry])
        terminal = rig.console("create", "-c", path)
        try:
            terminal.until(READY, 60)
            terminal.until(PROMPT, 30)
        except BaseException:
            terminal.kill()
            raise
        return terminal

    def verify(self, terminal):
        """A fresh guest, whose kernel replays the journal, sees all that was acknowledged."""
        terminal.type("mkdir -p /mnt; mount -t ext4 /dev/xvda /mnt; mkdir -p /mnt/d; cd /mnt/d; md5sum *; cd; echo =en''d\n")
        text = terminal.until(r"(?s)^(.*)=end\n", 120)[1]
        terminal.until(PROMPT)
        there = {name: found for found, name in re.findall(r"(?m)^([0-9a-f]{32})  (\d+)$", text)}
        wrong = [name for name, found in self.acknowledged.items() if there.get(name) != found]
        expect(not wrong, f"of {len(self.acknowledged)} acknowledged files {len(wrong)} are lost or wrong: {wrong[:8]}")
        self.checked += len(self.acknowledged)
        self.acknowledged = {}

    def write(self, terminal, seconds):
        """Lets the guest write until the moment comes, and gathers what it says."""
        terminal.type("rm -rf /mnt/d; mkdir /mnt/d; sync; /devices/files acknowledge /mnt/d\n")
        terminal.until("ack 0", 30)
        terminal.seen = "ack 0" + terminal.seen
        self.gather(terminal, seconds)

    def gather(self, terminal, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not terminal._read(left):
                break

    def note(self, terminal):
        self.acknowledged.update(re.findall(ACKNOWLEDGED, terminal.seen))

    def check(self):
        """What the journal is for, and no more; of a copy, because the next guest is to replay it too."""
        copy = self.rig.work / "soak.copy"
        if self.kind == "qcow2":
            # Clusters that were taken for nothing (status 3) are lost room, no damage.
            done = subprocess.run(["qemu-img", "check", str(self.path)], capture_output=True, text=True, check=False)
            expect(done.returncode in (0, 3), f"qemu-img check ended with {done.returncode}: {done.stdout[-600:]}{done.stderr[-200:]}")
            convert(self.path, copy, "qcow2", "raw")
        else:
            subprocess.run(["cp", "--sparse=always", str(self.path), str(copy)], check=True)
        replay = subprocess.run([tool("e2fsck"), "-p", str(copy)], capture_output=True, text=True, check=False)
        expect(replay.returncode <= 1, f"e2fsck -p ended with {replay.returncode}: {replay.stdout[-600:]}{replay.stderr[-200:]}")
        full = subprocess.run([tool("e2fsck"), "-fn", str(copy)], capture_output=True, text=True, check=False)
        expect(full.returncode == 0, f"e2fsck -fn ended with {full.returncode}: {full.stdout[-600:]}")


def convert(source, target, kind, wanted):
    subprocess.run([tool("qemu-img"), "convert", "-f", kind, "-O", wanted, str(source), str(target)], check=True, capture_output=True)


def tool(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    expect(found, f"{name} is not installed (scripts/setup installs it)")
    return found


def slay(rig, way):
    """Ends the domain, or its backend alone."""
    family = rig.family("soak-disk")
    expect(family, "the domain has no processes")
    wanted = {"xendomain alone": "xendomain", "xenblock": "xenblock"}.get(way)
    pids = [pid for pid, comm in family.items() if wanted in (None, comm)]
    expect(pids, f"no {wanted} among {family}")
    random.shuffle(pids)
    for pid in pids:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass
    # The rest of a domain follows its process; until then it may hold the image.
    dying = pids if way == "xenblock" else list(family)
    wait_for(lambda: not any(is_alive(pid) for pid in dying), 20, f"processes of a dead domain are left ({way})")


def is_alive(pid):
    # The first thread may be gone while another one still holds the domain's files.
    states = []
    for thread in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.append(thread.read_text().rsplit(")", 1)[1].split()[0])
        except OSError:
            continue
    return any(state not in "ZX" for state in states)


WAYS = ("xendomain alone", "everything", "xenblock")
KINDS = ("raw", "qcow2")


def one_death(disk, terminal, way):
    """The guest writes until the moment comes."""
    rig = disk.rig
    disk.write(terminal, random.uniform(0, LONGEST))
    slay(rig, way)
    if way == "xenblock":
        # The guest writes on, and the backend dies once more.
        disk.gather(terminal, random.uniform(0, LONGEST / 2))
        wait_for(lambda: "xenblock" in rig.family("soak-disk").values(), 10, "no other backend was started")
        slay(rig, way)
        before = len(re.findall(ACKNOWLEDGED, terminal.seen))
        end = time.monotonic() + 20 * PATIENCE
        while len(re.findall(ACKNOWLEDGED, terminal.seen)) <= before + 3:
            expect(time.monotonic() < end and terminal._read(1), f"the guest does not go on: {terminal.seen[-400:]}")
        slay(rig, "everything")
    disk.gather(terminal, 0.05)
    terminal.end(20)
    disk.note(terminal)
    rig.gone("soak-disk")
    expect(disk.acknowledged, "the guest acknowledged nothing")


def run(rig, count):
    """`count` deaths; how many were survived without loss, and how many not."""
    passed, checked = 0, 0
    for index, kind in enumerate(KINDS):
        disk = Disk(rig, kind)
        for number in range((count + index) // len(KINDS)):
            way = WAYS[number % len(WAYS)]
            passed += survived(disk, f"{number} ({kind}, {way})", lambda terminal, way=way: one_death(disk, terminal, way))
            if number % 20 == 19:
                print(f"disk: {number + 1} deaths with {kind}", flush=True)
        # Of the last death too.
        passed -= not survived(disk, f"after all ({kind})", lambda terminal: last_death(disk, terminal))
        checked += disk.checked
    print(f"disk: {passed} of {count} deaths without loss, {checked} acknowledged files checked", flush=True)
    return passed, count - passed


def survived(disk, what, death):
    """Whether all is there of what guests wrote so far, and the disk is sound after this death."""
    terminal = None
    try:
        terminal = disk.boot()
        disk.verify(terminal)
        death(terminal)
        disk.check()
        return True
    except (Failure, OSError, subprocess.SubprocessError) as error:
        print(f"FAIL disk death {what}: {error}", flush=True)
        if terminal:
            terminal.kill()
        disk.rig.destroy_all()
        disk.make()
        return False


def last_death(disk, terminal):
    slay(disk.rig, "everything")
    terminal.end(20)
    disk.rig.gone("soak-disk")
