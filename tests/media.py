"""Media of drives: changed, taken out and put in while the guest runs."""

import json
import os
import re

from lab import Guest, image, md5, random_file, records, test
from rig import expect

NUMBER = {"xvdb": "51728", "xvdc": "51744"}


def disc(rig, name, size):
    path = random_file(rig.work / name, size << 20)
    return path, md5(path)


def reads(guest, drive, total):
    """The guest reads this medium in the drive, which has come again."""
    guest.wait_until(f"[ -b /dev/{drive} ] && md5sum </dev/{drive} | grep -q {total}", f"{drive} has another content")


def shown(rig, guest, drive):
    rows = rig.must("block-list", guest.name).splitlines()
    return next((row.split() for row in rows if row.startswith(NUMBER[drive])), None)


def params(rig, guest, drive):
    listed = json.loads(rig.must("block-list", "--json", guest.name))
    return next(row["backend-nodes"]["params"] for row in listed if row["id"] == NUMBER[drive])


@test
def media(rig):
    """Discs are put in, changed and taken out; what cannot be used changes nothing; over a reboot the
    disc stays in the drive."""
    one, first = disc(rig, "one.iso", 3)
    two, second = disc(rig, "two, the other.iso", 5)
    guest = Guest(rig, "media", disk=[f"file:{one},xvdb:cdrom,r", ",xvdc:cdrom,r"], on_reboot="restart")
    reads(guest, "xvdb", first)
    expect(guest.sh("cat /sys/block/xvdc/size").strip() == "0", "the empty drive is not empty")

    # Another one, by a path with a comma in it; then out, and in again.
    rig.must("cd-insert", guest.name, "xvdb", str(two), program="xl")
    reads(guest, "xvdb", second)
    expect(shown(rig, guest, "xvdb")[3] == "4", "it was not taken when the command ended")
    rig.must("cd-eject", guest.name, "xvdb", program="xl")
    guest.wait_until("[ $(cat /sys/block/xvdb/size) = 0 ]", "the disc is still in")
    expect(shown(rig, guest, "xvdb") and params(rig, guest, "xvdb") == "", "the empty drive is not listed as such")
    expect(not records(rig), f"the discs are still in use: {records(rig)}")
    rig.must("cd-eject", guest.name, "xvdb", program="xl")
    for turn in range(4):
        path, total = ((one, first), (two, second))[turn % 2]
        rig.must("cd-insert", guest.name, "/dev/xvdb", f"file:{path}" if turn == 0 else str(path), program="xl")
        reads(guest, "xvdb", total)
    rig.must("block-configure", guest.name, f"file:{one}", "xvdc:cdrom", "r")
    reads(guest, "xvdc", first)

    # What cannot be used changes nothing.
    os.makedirs(rig.work / "folder.iso")
    for path, why in (("/no/such.iso", "/no/such.iso"), (rig.work / "folder.iso", "folder.iso")):
        code, _, err = rig.run("cd-insert", guest.name, "xvdb", str(path), program="xl")
        expect(code == 1 and why in err, f"{path}: {code} {err!r}")
    (rig.work / "broken.qcow2").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(500))
    code, _, err = rig.run("cd-insert", guest.name, "xvdb", f"format=qcow2,target={rig.work / 'broken.qcow2'}", program="xl")
    expect(code == 1, f"a broken image was taken: {code} {err!r}")
    reads(guest, "xvdb", second)
    code, _, err = rig.run("cd-insert", guest.name, "xvdq", str(one), program="xl")
    expect(code == 1 and "xvdq" in err, f"a drive that is not there: {code} {err!r}")

    # A guest that does not let go keeps its disc.
    rig.must("pause", guest.name)
    code, _, err = rig.run("cd-insert", guest.name, "xvdb", str(one), program="xl")
    expect(code == 1 and re.search("does not let go of xvdb, which keeps its medium(.|\n)*Unmount", err), f"{code} {err!r}")
    rig.must("unpause", guest.name)
    reads(guest, "xvdb", second)
    rig.must("cd-insert", guest.name, "xvdb", str(one), program="xl")
    reads(guest, "xvdb", first)

    # The disc stays in the drive.
    rig.must("cd-insert", guest.name, "xvdc", str(two), program="xl")
    guest.reboot()
    reads(guest, "xvdb", first)
    reads(guest, "xvdc", second)
    guest.off()
    expect((md5(one), md5(two)) == (first, second), "a disc was changed")


@test
def media_of_others(rig):
    """Only what is for reading can be changed; and discs in use by a mount are gone from it, not exchanged under it."""
    data, late = image(rig, "data.img", 16, ext4=True), image(rig, "late.img", 16, ext4=True)
    disc_one, first = disc(rig, "one.iso", 2)
    guest = Guest(rig, "fixed", disk=[f"file:{data},xvda,w", f"file:{late},xvdb,r"])
    guest.sh("mkdir /mnt /late && mount -t ext4 /dev/xvda /mnt && mount -t ext4 -o ro,noload /dev/xvdb /late")
    for words, why in (
        (("block-configure", guest.name, f"file:{disc_one}", "xvda", "r"), "xvda: the guest may write to it"),
        (("block-configure", guest.name, f"file:{disc_one}", "xvdb", "w"), "xvdb: a medium is for reading only"),
    ):
        code, _, err = rig.run(*words)
        expect(code == 1 and f"Refusing to reconfigure device {why}" in err, f"{words}: {code} {err!r}")
    code, _, err = rig.run("cd-eject", guest.name, "xvdb", program="xl")
    expect(code == 1 and "it is no CD drive" in err, f"eject of a disk: {code} {err!r}")
    guest.sh("/devices/files write /mnt/a 5 100 && /devices/files check /mnt/a && ls /late")
    guest.sh("umount /late")
    rig.must("block-configure", guest.name, f"file:{disc_one}", "xvdb", "r")
    reads(guest, "xvdb", first)
    expect(guest.sh("cat /sys/block/xvdb/ro").strip() == "1", "it can be written now")
    guest.kill("xenblock")
    reads(guest, "xvdb", first)
    guest.sh("echo 3 >/proc/sys/vm/drop_caches; /devices/files check /mnt/a")
    guest.off()


@test
def media_while_busy(rig):
    """A guest that has much else to do, and is stopped now and then, still gets every disc."""
    discs = [disc(rig, f"disc{number}", 1) for number in range(3)]
    guest = Guest(rig, "busy", disk=[f"file:{discs[0][0]},xvdb:cdrom,r"])
    guest.sh("for n in 1 2 3 4; do (while :; do :; done) & done; true")
    for turn in range(1, 13):
        path, total = discs[turn % 3]
        rig.must("cd-insert", guest.name, "xvdb", str(path), program="xl")
        if turn % 4 == 0:
            rig.must("pause", guest.name)
            rig.must("unpause", guest.name)
        expect(shown(rig, guest, "xvdb")[3] == "4", f"change {turn}: not connected")
        reads(guest, "xvdb", total)
    guest.sh("kill $(jobs -p) 2>/dev/null; true")
    guest.off()
