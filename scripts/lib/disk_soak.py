"""A disk's guest dies at random moments: what it said is on the disk must be there (scripts/soak)."""

import os
import pathlib
import random
import re
import shutil
import subprocess
import time

from rig import PROMPT, READY, Failure, expect, wait_for

MEGABYTES = 160
LONGEST = 1.5  # seconds of writing before the end comes
ACKNOWLEDGED = r"(?m)^ack (\d+) ([0-9a-f]{32})$"


class Disk:
    """An image, and what guests said is on it in the directory of the last round."""

    def __init__(self, rig):
        self.rig, self.path = rig, rig.work / "soak.img"
        self.acknowledged, self.checked = {}, 0
        with open(self.path, "wb") as file:
            file.truncate(MEGABYTES << 20)
        subprocess.run([tool("mkfs.ext4"), "-q", "-F", str(self.path)], check=True, capture_output=True)

    def boot(self):
        rig = self.rig
        path = rig.config("soak-disk", ramdisk=str(rig.base / "devices.cpio"), memory=128, disk=[f"file:{self.path},xvda,w"])
        terminal = rig.console("create", "-c", path)
        try:
            terminal.until(READY, 60)
            terminal.until(PROMPT, 30)
        except BaseException:
            terminal.kill()
            raise
        return terminal

    def verify(self, terminal):
        """A fresh guest sees all that was acknowledged."""
        terminal.type("mkdir -p /mnt; mount -t ext4 /dev/xvda /mnt; mkdir -p /mnt/d; cd /mnt/d; md5sum *; cd; echo =en''d\n")
        while "=end\n" not in terminal.seen:
            expect(terminal._read(30), "the console ended")
        text, terminal.seen = terminal.seen.split("=end\n", 1)
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
        """What the journal is for, and no more."""
        replay = subprocess.run([tool("e2fsck"), "-p", str(self.path)], capture_output=True, text=True, check=False)
        expect(replay.returncode <= 1, f"e2fsck -p ended with {replay.returncode}: {replay.stdout[-600:]}{replay.stderr[-200:]}")
        full = subprocess.run([tool("e2fsck"), "-fy", str(self.path)], capture_output=True, text=True, check=False)
        expect(full.returncode == 0, f"e2fsck -fy ended with {full.returncode}: {full.stdout[-600:]}")


def tool(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    expect(found, f"{name} is not installed (package e2fsprogs)")
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
        end = time.monotonic() + 20
        while len(re.findall(ACKNOWLEDGED, terminal.seen)) <= before + 3:
            expect(time.monotonic() < end and terminal._read(1), f"the guest does not go on: {terminal.seen[-400:]}")
        slay(rig, "everything")
    disk.gather(terminal, 0.05)
    terminal.end(20)
    disk.note(terminal)
    rig.gone("soak-disk")


def run(rig, count):
    """`count` deaths; how many were survived without loss, and how many not."""
    passed, failed, checked = 0, 0, 0
    disk = Disk(rig)
    for number in range(count):
        way = WAYS[number % len(WAYS)]
        terminal = None
        try:
            terminal = disk.boot()
            disk.verify(terminal)
            one_death(disk, terminal, way)
            expect(disk.acknowledged, "the guest acknowledged nothing")
            disk.check()
            passed += 1
        except (Failure, OSError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"FAIL disk death {number} ({way}): {error}", flush=True)
            if terminal:
                terminal.kill()
            rig.destroy_all()
            checked += disk.checked
            disk = Disk(rig)
    terminal = disk.boot()
    disk.verify(terminal)
    terminal.kill()
    rig.destroy_all()
    print(f"disk: {passed} of {count} deaths without loss, {checked + disk.checked} acknowledged files checked", flush=True)
    return passed, failed
