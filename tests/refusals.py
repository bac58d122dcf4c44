"""Devices that cannot be had: `xm create` says why, and leaves nothing behind."""

import os
import shutil
import socket

from lab import Guest, image, make_qcow2, need, random_file, refused, test
from rig import expect

MAC = "00:16:3e:5a:5a:5a"


@test
def missing_image(rig):
    err = refused(rig, r"disk\[0\].*/no/such\.img.*does not exist", disk=["file:/no/such.img,xvda,w"])
    expect("truncate" in err, f"no hint: {err!r}")
    good = image(rig, "good.img", 1)
    refused(rig, r"disk\[1\].*/no/such\.img", disk=[f"file:{good},xvda,w", "file:/no/such.img,xvdb,w"])


@test
def wrong_kind(rig):
    good = image(rig, "good.img", 1)
    refused(rig, r"disk\[0\].*is a file, not a block device", disk=[f"phy:{good},xvda,w"])
    refused(rig, r"disk\[0\].*is a directory", disk=[f"file:{rig.work},xvda,w"])
    refused(rig, r"disk\[0\].*character device", disk=["file:/dev/null,xvda,w"])
    pipe = rig.work / "pipe"
    os.mkfifo(pipe)
    refused(rig, r"disk\[0\].*neither a file nor a device", disk=[f"file:{pipe},xvda,w"])
    empty = image(rig, "empty.img", 0)
    refused(rig, r"disk\[0\].*is empty", disk=[f"file:{empty},xvda,w"])


@test
def wrong_format(rig):
    path = random_file(rig.work / "noise.img", 1 << 20)
    refused(rig, r"disk\[0\].*noise\.img is no qcow2 image", disk=[f"tap:qcow2:{path},xvda,w"])
    refused(rig, r"disk\[0\].*vhd.*not supported(.|\n)*qemu-img convert", disk=[f"format=vhd,vdev=xvda,access=rw,target={path}"])


@test
def backing_not_named(rig):
    """An image's header alone opens no file of the host."""
    path = make_qcow2(rig.work / "sly.qcow2", 1, backing="/etc/hostname")
    err = refused(rig, r"disk\[0\].*has the backing file '/etc/hostname', which the entry does not name",
        disk=[f"tap:qcow2:{path},xvda,w"])
    expect("backing=/etc/hostname" in err, f"no hint: {err!r}")
    plain = make_qcow2(rig.work / "plain.qcow2", 1)
    refused(rig, r"disk\[0\].*has no backing file", disk=[f"format=qcow2,vdev=xvda,access=rw,backing=/etc/hostname,target={plain}"])


@test
def locked_image(rig):
    """A writer has an image alone, readers share it; w! has its way."""
    path = image(rig, "shared.img", 16, ext4=True)
    writer = Guest(rig, "writer", disk=[f"file:{path},xvda,w"])
    err = refused(rig, rf"disk\[0\].*is in use by domain '{writer.name}'", disk=[f"file:{path},xvda,w"])
    expect("w!" in err, f"no hint: {err!r}")
    refused(rig, rf"disk\[0\].*is in use by domain '{writer.name}'", disk=[f"file:{path},xvda,r"])
    link = rig.work / "link.img"
    os.link(path, link)
    refused(rig, rf"is in use by domain '{writer.name}'", disk=[f"file:{link},xvda,w"])
    forced = Guest(rig, "forced", disk=[f"file:{path},xvda,w!"])
    forced.sh("[ -b /dev/xvda ]")
    forced.off()
    writer.off()
    one = Guest(rig, "reader1", disk=[f"file:{path},xvda,r"])
    two = Guest(rig, "reader2", disk=[f"file:{path},xvda,r"])
    refused(rig, rf"is in use by domains '{one.name}', '{two.name}'", disk=[f"file:{path},xvda,w"])
    one.off()
    two.off()


@test
def no_such_bridge(rig):
    refused(rig, r"vif\[0\]: there is no bridge `nobridge`", vif=["bridge=nobridge"])
    refused(rig, r"vif\[0\]: `lo` is no bridge", vif=["bridge=lo"])


@test
def mac_in_use(rig):
    need("passt", "passt")
    first = Guest(rig, "first", vif=[f"mac={MAC}"])
    err = refused(rig, rf"vif\[0\]: mac={MAC} is in use on this host by the domain `{first.name}`", vif=[f"mac={MAC}"])
    expect("another `mac`" in err, f"no hint: {err!r}")
    first.off()


@test
def port_taken(rig):
    need("passt", "passt")
    good = image(rig, "good.img", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        err = refused(rig, rf"vif\[1\]: the host's port in ports=.*{port}.*cannot be had", disk=[f"file:{good},xvda,w"],
            vif=["", f"ports={port}:80"])
    expect("another host port" in err, f"no hint: {err!r}")


@test
def programs_missing(rig):
    """Without the backend's program no domain with a disk starts."""
    good = image(rig, "good.img", 1)
    program = rig.base / "libexec/xenolith/xenblock"
    if not os.access(program.parent, os.W_OK):
        return
    aside = rig.base / "aside"
    shutil.move(program, aside)
    try:
        refused(rig, r"xenblock", disk=[f"file:{good},xvda,w"])
    finally:
        shutil.move(aside, program)
