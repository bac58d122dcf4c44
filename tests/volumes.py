"""Block devices of the host as disks (`phy:`): a loop device and a logical volume of LVM."""

import contextlib
import errno
import os
import shutil
import subprocess

from disks import mounted
from lab import Guest, Skip, check_ext4, image, make_ext4, need, need_root, refused, test
from rig import PATIENCE, expect

MEGABYTES, GROWN = 64, 96


def host(*words, **options):
    """Runs a command of the host, which has to succeed, and returns what it prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60 * PATIENCE, check=False, **options)
    expect(done.returncode == 0, f"'{' '.join(map(str, words))}' ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def loop_device(path):
    """A file as a block device."""
    need_root("make a loop device")
    need("losetup", "mount")
    done = subprocess.run(["losetup", "--find", "--show", str(path)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Skip(f"no loop device can be had: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=False)


@contextlib.contextmanager
def claimed(path):
    """The host has a device for itself, as it has one that is mounted (open(2): O_EXCL)."""
    device = os.open(path, os.O_RDONLY | os.O_EXCL)
    try:
        yield
    finally:
        os.close(device)


def is_free(path):
    try:
        with claimed(path):
            return True
    except OSError as error:
        expect(error.errno == errno.EBUSY, f"{path}: {error}")
        return False


def serves_a_guest(rig, name, device, grow):
    """A guest's life with a device as its disk, named below /dev; `grow` makes it GROWN MiB large."""
    disk = [f"phy:{device},xvda,w"]
    path = f"/dev/{device}"
    make_ext4(path)
    guest = mounted(rig, name, disk)
    guest.sh("/devices/files write /mnt/a 20 200")
    for entry in (f"phy:{path},xvda,w", f"phy:{path},xvda,r"):
        refused(rig, rf"disk\[0\].*is in use by domain '{guest.name}'", disk=[entry])
    expect(not is_free(path), "the host could mount the device that a guest has")
    code, _, err = rig.run("block-resize", guest.name, "xvda", "+1M")
    expect(code != 0 and path in err and "lvextend" in err and "block-refresh" in err, f"resize of a device: {code} {err!r}")
    grow()
    rig.must("block-refresh", guest.name, "xvda")
    guest.wait_until(f"[ $(cat /sys/block/xvda/size) = {GROWN << 11} ]", "the guest does not see the new size")
    guest.sh(f"dd if=/dev/zero of=/dev/xvda bs=1M seek={MEGABYTES} count={GROWN - MEGABYTES} conv=fsync 2>/dev/null")
    guest.sh("umount /mnt && mount -t ext4 /dev/xvda /mnt && /devices/files check /mnt/a && umount /mnt")
    guest.off()
    expect(is_free(path), "the device of a guest that is gone is still in use")
    check_ext4(path)
    with claimed(path):
        refused(rig, r"disk\[0\].*in use on the host(.|\n)*Unmount it first", disk=disk)
    guest = mounted(rig, name, [f"phy:{device},xvda,r"])
    guest.sh("/devices/files check /mnt/a")
    guest.off()


@test
def loop_device_as_disk(rig):
    path = image(rig, "loop.img", MEGABYTES)
    with loop_device(path) as device:
        def grow():
            os.truncate(path, GROWN << 20)
            host("losetup", "--set-capacity", device)

        serves_a_guest(rig, "looped", device.removeprefix("/dev/"), grow)


@test
def discards_reach_the_device(rig):
    """What a guest discards is given back by the device below, and nothing else is."""
    path = image(rig, "trimmed.img", MEGABYTES)
    with loop_device(path) as device:
        make_ext4(device)
        guest = mounted(rig, "trims", [f"phy:{device},xvda,w"])
        guest.sh("/devices/files write /mnt/a 10 400; dd if=/dev/urandom of=/mnt/big bs=1M count=30 conv=fsync 2>/dev/null")
        before = path.stat().st_blocks
        guest.sh("rm /mnt/big && sync && fstrim /mnt")
        after = path.stat().st_blocks
        expect(after < before - (25 << 11), f"the device has {after} blocks, before {before}")
        guest.sh("umount /mnt && mount -t ext4 /dev/xvda /mnt && /devices/files check /mnt/a")
        guest.off()
        check_ext4(device)


class VolumeGroup:
    """A volume group on a loop device, which LVM knows of by a configuration of its own: it looks at no
    other device, and leaves the nodes in /dev to nobody else (there may be no udev)."""

    def __init__(self, rig, device):
        self.name = f"xenolith-{rig.work.name[3:]}"
        folder = rig.work / "lvm"
        folder.mkdir(exist_ok=True)
        (folder / "lvm.conf").write_text(f"""
            devices {{ global_filter = [ "a|^{device}$|", "r|.*|" ] use_devicesfile = 0 obtain_device_list_from_udev = 0
                       external_device_info_source = "none" hints = "none" }}
            activation {{ udev_sync = 0 udev_rules = 0 monitoring = 0 }}
            global {{ locking_dir = "{folder}" use_lvmpolld = 0 event_activation = 0 }}
            backup {{ backup = 0 archive = 0 }}
        """)
        self.environment = dict(os.environ, LVM_SYSTEM_DIR=str(folder), LVM_SUPPRESS_FD_WARNINGS="1")
        self.device = device

    def __enter__(self):
        self.lvm("vgcreate", self.name, self.device)
        return self

    def __exit__(self, *_):
        subprocess.run(["lvm", "vgremove", "--force", self.name], env=self.environment, capture_output=True, check=False)

    def lvm(self, *words):
        return host("lvm", *words, env=self.environment)


def need_device_mapper():
    need_root("make logical volumes")
    need("lvm", "lvm2")
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "--quiet", "dm-mod"], capture_output=True, check=False)
    done = subprocess.run(["dmsetup", "version"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Skip("this kernel has no device mapper (module dm-mod), which LVM needs: scripts/keyed-host has one")


@test
def logical_volume_as_disk(rig):
    """Named as the lecture does: phy:GROUP/VOLUME."""
    need_device_mapper()
    with loop_device(image(rig, "lvm.img", GROWN + 32)) as device, VolumeGroup(rig, device) as group:
        volume = f"{group.name}/root"
        group.lvm("lvcreate", "--yes", "--name", "root", "--size", f"{MEGABYTES}m", group.name)
        serves_a_guest(rig, "volume", volume, lambda: group.lvm("lvextend", "--size", f"{GROWN}m", volume))
        # A volume in use stays; one that no guest has goes.
        guest = Guest(rig, "volume", disk=[f"phy:{volume},xvda,w"])
        done = subprocess.run(["lvm", "lvremove", "--yes", volume], env=group.environment, capture_output=True, text=True, check=False)
        expect(done.returncode != 0 and "in use" in done.stderr, f"lvremove of a guest's volume: {done.returncode} {done.stderr}")
        guest.off()
        group.lvm("lvremove", "--yes", volume)
