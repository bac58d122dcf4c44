"""A bare Debian system in a folder, and our package for it."""

import os
import pathlib
import subprocess

from rig import OUT, PATIENCE, ROOT, expect

LIMIT = 120
# Fetching it from the archive.
FETCH_LIMIT = 400
# Makes a folder the root of its namespaces, not merely a changed root, and runs a command there.
ENTER = """set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs run
pivot_root . old
umount -l /old
shift
exec chroot . "$@"
"""
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "TERM": "xterm"}


class NoSystem(Exception):
    """No bare system can be made here."""


class System:
    """A bare system of the release that runs here, with further packages. It is made once and kept as out/NAME."""

    def __init__(self, folder, name, *packages):
        self.root = folder / "root"
        archive = OUT / name
        if not archive.exists():
            make(archive, packages)
        self.root.mkdir()
        (self.root / "old").mkdir()
        subprocess.run(["tar", "-xf", str(archive), "-C", str(self.root), "--exclude=./dev/*"], check=True)

    def run(self, *command, status=0, seconds=LIMIT):
        """The output of a command inside, which must end with `status`."""
        inside = ["unshare", "--mount", "--ipc", "sh", "-c", ENTER, "enter", str(self.root), *command]
        done = subprocess.run(inside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=seconds * PATIENCE, check=False, env=ENVIRONMENT)
        expect(done.returncode == status, f"'{' '.join(command)}' ended with {done.returncode}, not {status}: {done.stdout[-1500:]}")
        return done.stdout


def make(archive, packages):
    release = dict(line.split("=", 1) for line in open("/etc/os-release") if "=" in line)["VERSION_CODENAME"].strip().strip('"')
    include = [f"--include={','.join(packages)}"] if packages else []
    command = ["mmdebstrap", "--quiet", "--variant=minbase", *include, "--format=tar", release, f"{archive}.part"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_LIMIT * PATIENCE, check=False)
    except FileNotFoundError as error:
        raise NoSystem(str(error)) from error
    if done.returncode != 0:
        raise NoSystem(done.stderr.strip()[-300:])
    os.rename(f"{archive}.part", archive)


def build_package(folder, binaries):
    """Builds the package of these programs; returns where it is."""
    built = subprocess.run([str(ROOT / "scripts/deb"), str(folder)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=LIMIT * PATIENCE, check=False, env=dict(os.environ, TARGET=str(binaries)))
    expect(built.returncode == 0, f"scripts/deb ended with {built.returncode}: {built.stderr[-1500:]}")
    return pathlib.Path(built.stdout.splitlines()[-1])
