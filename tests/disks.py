"""Disks: files, images, hot plug, a full host, backends that die."""

import os
import pathlib
import random
import re
import shutil
import subprocess
import time

from lab import (Guest, backends, check_ext4, check_qcow2, for_each_kernel, helpers, image, make_ext4, make_qcow2, md5, need, need_root,
    random_file, records, test)
from rig import expect, wait_for


def mounted(rig, name, disk, **keys):
    """A guest with its first disk at /mnt."""
    guest = Guest(rig, name, disk=disk, **keys)
    guest.sh("mkdir /mnt && mount -t ext4 /dev/xvda /mnt")
    return guest


@for_each_kernel
def files(rig, kernel):
    """What a guest wrote is there after it rebooted."""
    path = image(rig, "files.img", 64, ext4=True)
    guest = mounted(rig, "files", [f"file:{path},xvda,w"], kernel=str(rig.kernel(kernel)), on_reboot="restart")
    guest.sh("/devices/files write /mnt/a 20 200")
    guest.reboot("umount /mnt && reboot")
    guest.sh("mkdir /mnt && mount -t ext4 /dev/xvda /mnt && /devices/files check /mnt/a")
    expect(guest.sh("dmesg | grep -c 'recovery complete' || true").strip() == "0", "the file system was not clean")
    guest.off()


@test
def read_only_and_cdrom(rig):
    """Mode r and a CD-ROM cannot be written, whatever the guest tries."""
    path = image(rig, "plain.img", 16, ext4=True)
    disc = random_file(rig.work / "disc.iso", 4 << 20)
    before = md5(path), md5(disc)
    guest = mounted(rig, "readonly", [f"file:{path},xvda,r", f"file:{disc},xvdb:cdrom,r", ",xvdc:cdrom,r"])
    expect("xvda /mnt ext4 ro," in guest.sh("grep xvda /proc/mounts").replace("/dev/", ""), "it is mounted for writing")
    for disk in ("xvda", "xvdb"):
        expect(guest.sh(f"cat /sys/block/{disk}/ro").strip() == "1", f"{disk} is not read-only")
        guest.sh(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 conv=fsync 2>/dev/null", good=False)
    expect(guest.sh("md5sum </dev/xvdb").split()[0] == before[1], "the disc reads wrong")
    guest.off()
    expect((md5(path), md5(disc)) == before, "an image was changed")


@test
def several_disks(rig):
    """Eight disks at once under the names of their entries, each with its own content."""
    names = ["xvda", "xvdb1", "sdc", "hdd", "xvde", "xvdf", "xvdz", "xvdaa"]
    seen = ["xvda", "xvdb1", "xvdc", "xvdd", "xvde", "xvdf", "xvdz", "xvdaa"]
    paths = [random_file(rig.work / f"disk{number}", 2 << 20) for number in range(len(names))]
    guest = Guest(rig, "several", disk=[f"file:{path},{name},w" for path, name in zip(paths, names)])
    there = guest.sh("ls /dev | grep ^xvd").split()
    expect(sorted(there) == sorted(seen), f"the guest has {there}, expected {seen}")
    sums = guest.sh("for d in " + " ".join(seen) + "; do md5sum </dev/$d; done").replace("-", "").split()
    expect(sums == [md5(path) for path in paths], "the disks' contents differ")
    # What must not be left later can be seen now.
    expect(backends(rig) == [f"vbd/{guest.number()}"] and len(records(rig)) == len(paths), f"{backends(rig)}, {records(rig)}")
    expect(any(helper.startswith("xenblock ") for helper in helpers(rig)), f"processes: {helpers(rig)}")
    guest.sh("for d in " + " ".join(seen) + "; do echo $d | dd of=/dev/$d conv=fsync 2>/dev/null & done; wait")
    for path, name in zip(paths, seen):
        expect(path.read_bytes()[: len(name) + 1] == f"{name}\n".encode(), f"what was written to {name} is not in its image")
    guest.off()


@test
def swap(rig):
    """Memory is pushed out to a disk and comes back as it was."""
    path = image(rig, "swap.img", 256)
    guest = Guest(rig, "swap", memory=128, disk=[f"file:{path},xvda,w"])
    guest.sh("mkswap /dev/xvda && swapon /dev/xvda && mkdir /big && mount -t tmpfs -o size=170m tmpfs /big")
    guest.sh("/devices/files write /big/a 16 9000", 60)
    used = int(guest.sh("grep xvda /proc/swaps").split()[3]) >> 10
    expect(used > 40, f"only {used} MiB of swap are used")
    guest.sh("/devices/files check /big/a", 60)
    guest.sh("rm -r /big/a && swapoff /dev/xvda", 60)
    guest.off()


@test
def sequential_and_random(rig):
    """A big copy in order, and a copy of small blocks in disorder, past the guest's cache."""
    source, big, small = random_file(rig.work / "source", 96 << 20), image(rig, "big", 96), image(rig, "small", 2)
    guest = Guest(rig, "copies", disk=[f"file:{source},xvda,r", f"file:{big},xvdb,w", f"file:{small},xvdc,w"])
    guest.sh("dd if=/dev/xvda of=/dev/xvdb bs=1M oflag=direct 2>/dev/null", 60)
    expect(md5(big) == md5(source), "the big copy differs")
    order = list(range(512))
    random.shuffle(order)
    guest.sh("for n in $(shuf -i 0-511); do dd if=/dev/xvda of=/dev/xvdc bs=4k skip=$n seek=$n count=1 conv=notrunc "
        "iflag=direct oflag=direct 2>/dev/null || break; done", 60)
    with open(source, "rb") as file:
        expect(small.read_bytes() == file.read(2 << 20), "the copy of small blocks differs")
    expect(guest.sh("md5sum </dev/xvdb", 60).split()[0] == md5(source), "it reads back wrong")
    guest.off()


@for_each_kernel
def qcow2(rig, kernel):
    """The image grows with what is written, and reads back as it was; so does one on top of it."""
    path = make_qcow2(rig.work / "image.qcow2", 600)
    top = make_qcow2(rig.work / "top.qcow2", 600, path, "qcow2")
    keys = {"kernel": str(rig.kernel(kernel))}
    guest = Guest(rig, "qcow", disk=[f"tap:qcow2:{path},xvda,w"], **keys)
    guest.sh("mke2fs -F /dev/xvda >/dev/null && mkdir /mnt && mount -t ext4 /dev/xvda /mnt")
    guest.sh("/devices/files write /mnt/a 20 500", 60)
    guest.off()
    expect(9 << 20 < path.stat().st_size < 200 << 20, f"the image has {path.stat().st_size} bytes")
    check_qcow2(path)
    before = md5(path)
    disk = [f"format=qcow2,vdev=xvda,access=rw,backing={path},target={top}"]
    guest = mounted(rig, "qcow", disk, **keys)
    guest.sh("/devices/files check /mnt/a && /devices/files write /mnt/b 5 100")
    guest.off()
    guest = mounted(rig, "qcow", disk, **keys)
    guest.sh("/devices/files check /mnt/a && /devices/files check /mnt/b")
    guest.off()
    check_qcow2(top)
    expect(md5(path) == before, "the backing file was changed")


@test
def raw_backing(rig):
    """The top image takes what is written, the base stays as it is."""
    base = image(rig, "base.img", 64, ext4=True)
    top = make_qcow2(rig.work / "top.qcow2", 64, base, "raw")
    before = md5(base)
    guest = mounted(rig, "backed", [f"format=qcow2,vdev=xvda,access=rw,backing={base},target={top}"])
    guest.sh("/devices/files write /mnt/a 20 100 && umount /mnt && mount -t ext4 /dev/xvda /mnt && /devices/files check /mnt/a")
    guest.off()
    expect(md5(base) == before, "the backing file was changed")
    check_qcow2(top)


@test
def qcow2_of_qemu(rig):
    """Images go to QEMU's tools and come from them."""
    need("qemu-img", "qemu-utils")
    raw, path, back = image(rig, "qemu.raw", 32, ext4=True), rig.work / "qemu.qcow2", rig.work / "back.raw"
    convert = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(path)]
    subprocess.run(convert, check=True, capture_output=True)
    guest = mounted(rig, "qemu", [f"tap:qcow2:{path},xvda,w"])
    guest.sh("/devices/files write /mnt/a 10 500 && umount /mnt")
    guest.off()
    check_qcow2(path)
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(path), str(back)], check=True, capture_output=True)
    guest = mounted(rig, "qemu", [f"file:{back},xvda,r"])
    guest.sh("/devices/files check /mnt/a")
    guest.off()


@test
def code_from_disk(rig):
    """A disk writes to a page while a program executes it: what opens protection keys does not run."""
    guest = Guest(rig, "code", disk=[f"file:{image(rig, 'code.img', 1)},xvda,w"])
    said = guest.sh("/devices/direct /dev/xvda 3000", 120)
    print("    " + said.replace("\n", "\n    ").strip(), flush=True)
    # In a process of its own a program may write PKRU: there is nothing that it opens.
    expect("by protection keys" not in guest.log() or "skip" not in said, "WRPKRU runs where keys are the wall")
    guest.off()


@test
def hot_plug_disks(rig):
    """Disks come, change their size and go while the guest runs."""
    first, path = image(rig, "first.img", 16, ext4=True), image(rig, "late.img", 32, ext4=True)
    guest = mounted(rig, "plug", [f"file:{first},xvda,w"])
    rig.must("block-attach", guest.name, f"file:{path}", "xvdb", "w")
    guest.wait_until("[ -b /dev/xvdb ]", "the new disk does not come")
    rows = rig.must("block-list", guest.name).splitlines()
    expect(rows[0].startswith("Vdev ") and [row.split()[0] for row in rows[1:]] == ["51712", "51728"], f"block-list: {rows}")
    expect(all(row.split()[3] == "4" for row in rows[1:]), f"not connected: {rows}")
    code, _, err = rig.run("block-attach", guest.name, f"file:{path}", "xvdc", "w")
    expect(code != 0 and guest.name in err, f"the same image twice: {code} {err!r}")
    code, _, err = rig.run("block-attach", guest.name, "file:/no/such.img", "xvdc", "w")
    expect(code != 0 and "/no/such.img" in err, f"a missing image: {code} {err!r}")
    guest.sh("mkdir /late && mount -t ext4 /dev/xvdb /late && /devices/files write /late/a 5 100")
    os.truncate(path, 48 << 20)
    rig.must("block-refresh", guest.name, "xvdb")
    guest.wait_until(f"[ $(cat /sys/block/xvdb/size) = {48 << 11} ]", "the guest does not see the new size")
    rig.must("block-attach", guest.name, f"tap:qcow2:{make_qcow2(rig.work / 'fixed.qcow2', 8)}", "xvdd", "w")
    code, _, err = rig.run("block-refresh", guest.name, "xvdd")
    expect(code != 0 and "xm block-resize" in err, f"refresh of qcow2: {code} {err!r}")
    rig.must("block-detach", guest.name, "xvdd")
    code, _, err = rig.run("block-refresh", guest.name, "xvdq")
    expect(code != 0 and "xvdq" in err, f"refresh of a disk that is not there: {code} {err!r}")
    guest.sh("/devices/files check /late/a && umount /late")
    # A guest that does not let go keeps it for the time being. (Linux does let go of mounted disks from
    # 5.14 on; one that is stopped cannot.)
    rig.must("pause", guest.name)
    code, _, err = rig.run("block-detach", guest.name, "xvdb")
    expect(code != 0 and re.search("let go of xvdb(.|\n)*[Uu]nmount(.|\n)*--force", err), f"no answer of the guest: {code} {err!r}")
    # Whoever asks for the same meanwhile waits with the first, who gets an answer too.
    with rig.begin("block-detach", guest.name, "xvdb") as first, rig.begin("block-detach", guest.name, "xvdb") as second:
        time.sleep(1)
        rig.must("unpause", guest.name)
        for asker in (first, second):
            out, err = asker.communicate(timeout=6)
            expect(asker.returncode == 0, f"two detach at once: {asker.returncode} {out!r} {err!r}")
    wait_for(lambda: len(rig.must("block-list", guest.name).splitlines()) == 2, 15, "it does not go later")
    guest.wait_until("[ ! -e /dev/xvdb ]", "the guest still has the disk")
    # At once, when nobody uses it; and the image is free at once, also after a detach by force.
    for turn in range(6):
        rig.must("block-attach", guest.name, f"file:{path},xvdb,w")
        guest.wait_until("[ -b /dev/xvdb ]", "it does not come again")
        guest.sh("mount -t ext4 /dev/xvdb /late && /devices/files check /late/a && umount /late")
        start = time.monotonic()
        rig.must("block-detach", *(["-f"] if turn % 2 else []), guest.name, "51728")
        expect(time.monotonic() - start < 5, "detaching took its time")
        expect(len(rig.must("block-list", guest.name).splitlines()) == 2 and len(records(rig)) == 1, "something of it is left")
        guest.wait_until("[ ! -e /dev/xvdb ]", "the guest still has the disk")
    # In use: the guest loses it.
    rig.must("block-attach", guest.name, f"file:{path},xvdb,w")
    guest.wait_until("[ -b /dev/xvdb ]", "it does not come again")
    guest.sh("mount -t ext4 /dev/xvdb /late")
    rig.must("block-detach", "-f", guest.name, "xvdb")
    guest.sh("echo 3 >/proc/sys/vm/drop_caches; /devices/files check /late/a", good=False)
    guest.sh("/devices/files write /mnt/a 5 100 && /devices/files check /mnt/a")
    rig.must("destroy", guest.name)
    guest.terminal.end()
    rig.gone(guest.name)


@for_each_kernel
def resized(rig, kernel):
    """Disks grow while the guest uses them: it sees that, and writes to their ends; all is there later."""
    path, plain = make_qcow2(rig.work / "grows.qcow2", 24), image(rig, "grows.img", 16)
    keys = {"kernel": str(rig.kernel(kernel))}
    disk = [f"tap:qcow2:{path},xvda,w", f"file:{plain},xvdb,w"]
    guest = Guest(rig, "resized", disk=disk, **keys)
    guest.sh("mke2fs -F /dev/xvda >/dev/null && mkdir /mnt && mount -t ext4 /dev/xvda /mnt")
    guest.sh("/devices/files write /mnt/a 10 300")
    guest.start("/devices/files copy /mnt/a /mnt/b")
    for turn, name, size, now in ((1, "xvda", "+1G", 24 + 1024), (2, "xvdb", "64M", 64), (3, "xvda", "1200m", 1200)):
        rig.must("block-resize", guest.name, name, size)
        expect(rig.must("block-resize", guest.name, f"/dev/{name}", f"{now << 20}") == "", f"{turn}: the same again")
        # Whoever serves it next knows the new size, too.
        if turn == 2:
            guest.another("xenblock", guest.kill("xenblock"))
    time.sleep(0.5)
    guest.terminal.type("\x1a")
    guest.terminal.until("Stopped", 30)
    guest.sh("touch /tmp/stop")
    guest.start("fg")
    found = guest.finish(r"copied (\d+)", 30)
    expect(found[2] == "0" and int(found[1]) > 0, f"the copies: {found[0]}")
    for name, now in (("xvda", 1200), ("xvdb", 64)):
        guest.wait_until(f"[ $(cat /sys/block/{name}/size) = {now << 11} ]", f"the guest does not see the size of {name}")
        last = f"seek={now * 2048 - 8} oflag=direct"
        guest.sh(f"yes {name} | dd of=/dev/{name} bs=512 count=8 {last} iflag=fullblock 2>/dev/null")
    for name, size, why in (("xvda", "1G", "smaller"), ("xvdb", "1K", "smaller"), ("xvdb", "16777216T", "so many bytes|is no size"),
            ("xvdq", "1G", "xvdq"), ("xvda", "9999999T", "at most|so many|is no size")):
        code, _, err = rig.run("block-resize", guest.name, name, size)
        expect(code != 0 and re.search(why, err), f"{name} to {size}: {code} {err!r}")
    guest.sh("/devices/files check /mnt/a && /devices/files check /mnt/b && umount /mnt")
    expect("error" not in guest.sh("dmesg | grep -i 'i/o error' || true").lower(), "the guest saw an error")
    guest.off()
    expect(plain.stat().st_size == 64 << 20, f"the raw image has {plain.stat().st_size} bytes")
    expect(plain.read_bytes()[-512:].count(b"xvdb\n") > 90, "what was written to the end is not there")
    check_qcow2(path, killed=True)
    guest = mounted(rig, "resized", disk, **keys)
    expect(guest.sh("cat /sys/block/xvda/size").strip() == str(1200 << 11), "the size is lost")
    end = guest.sh(f"dd if=/dev/xvda bs=512 count=8 skip={1200 * 2048 - 8} 2>/dev/null | grep -c xvda").strip()
    expect(int(end) > 700, f"the end is lost: {end}")
    guest.sh("/devices/files check /mnt/a && /devices/files check /mnt/b")
    guest.off()
    check_qcow2(path)


@test
def resized_not(rig):
    """What cannot grow is refused with a reason, and stays as it is."""
    path, disc = make_qcow2(rig.work / "not.qcow2", 8), random_file(rig.work / "disc.iso", 1 << 20)
    read, shared = image(rig, "read.img", 8), image(rig, "shared.img", 8)
    guest = Guest(rig, "fixed", disk=[f"file:{read},xvda,r", f"file:{shared},xvdb,w!", f"file:{disc},xvdc:cdrom,r", f"tap:qcow2:{path},xvdd,r"])
    for name, why in (("xvda", "mode r"), ("xvdb", "mode w!"), ("xvdc", "CD drive"), ("xvdd", "mode r")):
        code, _, err = rig.run("block-resize", guest.name, name, "+1G")
        expect(code != 0 and "Refusing" in err and why in err, f"{name}: {code} {err!r}")
    guest.off()
    expect([file.stat().st_size for file in (read, shared, disc)] == [8 << 20, 8 << 20, 1 << 20], "an image has grown")


@test
def detached_at_once(rig):
    """Disks that go while the guest is about to connect them, again and again."""
    disk = image(rig, "hasty.img", 16)
    guest = mounted(rig, "hasty", [f"file:{image(rig, 'root.img', 16, ext4=True)},xvda,w"])
    for turn in range(30):
        rig.must("block-attach", guest.name, f"file:{disk}", "xvdb", "w")
        # The guest connects a disk in some milliseconds.
        time.sleep(turn % 10 * 0.0015)
        rig.must("block-detach", guest.name, "xvdb")
    guest.sh("dmesg | grep -v 'RETBleed: WARNING' | grep -A9 -E 'BUG|WARNING|fatal'", good=False)
    guest.wait_until("[ ! -e /dev/xvdb ]", "the guest still has the disk")
    rig.must("block-attach", guest.name, f"file:{disk}", "xvdb", "w")
    guest.wait_until("[ -b /dev/xvdb ]", "a disk that stays does not come")
    rig.must("destroy", guest.name)
    guest.terminal.end()
    rig.gone(guest.name)


@test
def full_host(rig):
    """The host has no room: the domain is paused, and goes on without loss once there is some."""
    need_root("mount a file system")
    place = rig.work / "tiny"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], check=True)
    try:
        path = place / "disk.img"
        with open(path, "wb") as file:
            file.truncate(64 << 20)
        make_ext4(path)
        guest = mounted(rig, "full", [f"file:{path},xvda,w"])
        guest.start("/devices/files write /mnt/a 40 1000")
        wait_for(lambda: "p" in (rig.state(guest.name) or ""), 30, "the domain is not paused")
        reason = rf"paused; 'xm unpause {guest.name}' tries again.* error=.*(room|space|full)"
        expect(re.search(reason, guest.log()), f"log: {guest.log()[-600:]}")
        # In vain, and not the end of it.
        rig.must("unpause", guest.name)
        wait_for(lambda: "p" in (rig.state(guest.name) or ""), 30, "it is not paused again")
        subprocess.run(["mount", "-o", "remount,size=100m", str(place)], check=True)
        rig.must("unpause", guest.name)
        expect(guest.finish("", 60)[1] == "0", "the guest saw an error")
        guest.sh("umount /mnt && mount -t ext4 /dev/xvda /mnt && /devices/files check /mnt/a")
        expect("error" not in guest.sh("dmesg | grep -i 'i/o error' || true").lower(), "the guest saw an error")
        guest.off()
    finally:
        rig.destroy_all()
        subprocess.run(["umount", "-l", str(place)], check=False)


def kill_store(rig):
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if b"--serve" in (entry / "cmdline").read_bytes() and str(rig.work / "run").encode() in (entry / "environ").read_bytes():
                return os.kill(int(entry.name), 9)
        except OSError:
            continue
    # It does not show its environment to others than root.
    expect(os.geteuid() != 0, "there is no store")


@test
def backends_killed(rig):
    """The backend and the store are killed while the guest copies files: it does not notice."""
    path = image(rig, "killed.img", 64, ext4=True)
    guest = mounted(rig, "killed", [f"file:{path},xvda,w"])
    guest.sh("/devices/files write /mnt/a 10 300")
    guest.start("/devices/files copy /mnt/a /mnt/b")
    for turn in range(6):
        time.sleep(0.3)
        killed = guest.kill("xenblock")
        if turn % 2:
            kill_store(rig)
        guest.another("xenblock", killed)
    rig.must("block-list", guest.name)
    time.sleep(0.5)
    guest.terminal.type("\x1a")
    guest.terminal.until("Stopped", 30)
    guest.sh("touch /tmp/stop")
    guest.start("fg")
    found = guest.finish(r"copied (\d+)", 30)
    expect(found[2] == "0" and int(found[1]) > 0, f"the copies: {found[0]}")
    expect("error" not in guest.sh("dmesg | grep -i 'i/o error' || true").lower(), "the guest saw an error")
    guest.sh("/devices/files check /mnt/a && /devices/files check /mnt/b")
    expect(guest.log().count("the backend of the domain's vbd ended") >= 6, "the log does not tell of the ends")
    guest.off()
    check_ext4(path)
