"""A bare system with systemd as its first process, in namespaces of its own: booted, used, powered off."""

import pathlib
import subprocess
import tempfile
import time
import uuid

from bare import ENVIRONMENT, NoSystem
from rig import PATIENCE, Failure, Terminal, expect, wait_for

# What a machine of its own would not be asked for, or what would reach the host's kernel.
NO_CAPABILITIES = "-sys_module,-sys_time,-sys_rawio,-syslog,-audit_control,-audit_read,-mac_admin,-mac_override"
# A control group, wherever the one hierarchy of cgroup v2 is mounted. Only the new system's own processes are in it:
# a process of somebody else there would keep it from handing out controllers (cgroups(7), "no internal processes").
OUTER = """set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t cgroup2 cgroup2 "$1/sys"
mkdir "$1/sys/$2"
exec unshare --pid --fork --kill-child sh -c "$3" machine "$@"
"""
# What lies below the group the new system takes for the whole hierarchy.
MIDDLE = """set -e
echo 0 >"$1/sys/$2/cgroup.procs"
umount "$1/sys"
exec unshare --uts --ipc --net --cgroup --mount sh -c "$4" machine "$1" "$5"
"""
# What https://systemd.io/CONTAINER_INTERFACE asks for. The kernel's settings are the host's: read-only.
INNER = """set -e
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/net
for node in null zero full random urandom tty net/tun; do
    [ -e "/dev/$node" ] || continue
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
hostname xenhost
pivot_root . old
umount -l /old
: >/srv/entered
exec chroot . setpriv --bounding-set="$2" env -i container=test PATH="$PATH" LC_ALL=C.UTF-8 /lib/systemd/systemd --log-target=journal
"""
# Removes the control groups that a machine has left, deepest first.
SWEEP = """mount --make-rprivate / && mount -t cgroup2 cgroup2 "$1/sys" && find "$1/sys/$2" -depth -type d -exec rmdir {} +"""


class Machine:
    """The system in `system.root`; one boot at a time."""

    def __init__(self, system):
        self.system = system
        self.root = system.root
        self.group = f"xenolith-test-{uuid.uuid4().hex[:8]}"
        self.outside = None
        self.pid = None
        self.booted = 0.0
        self.console = tempfile.TemporaryFile()
        # It stays the same, so that the journal of one boot is read in the next.
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (self.root / "etc/hostname").write_text("xenhost\n")
        (self.root / "var/log/journal").mkdir(parents=True, exist_ok=True)

    def boot(self, seconds=60):
        """Starts it and waits until it has done what it does at its start."""
        entered = self.root / "srv/entered"
        entered.unlink(missing_ok=True)
        self.booted = time.time()
        words = ["unshare", "--mount", "sh", "-c", OUTER, "machine", str(self.root), self.group, MIDDLE, INNER, NO_CAPABILITIES]
        self.outside = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console, env=ENVIRONMENT)
        wait_for(lambda: entered.exists() or self.outside.poll() is not None, 20, "no namespaces")
        if not entered.exists():
            raise NoSystem(self.printed())
        self.pid = int(pathlib.Path(f"/proc/{self.outside.pid}/task/{self.outside.pid}/children").read_text())
        wait_for(lambda: self.state() in ("running", "degraded") or self.outside.poll() is not None, seconds, "it does not come up")
        expect(self.outside.poll() is None, f"systemd ended: {self.printed()}")

    def printed(self):
        self.console.seek(0)
        return self.console.read().decode(errors="replace").strip()[-1500:]

    def state(self):
        return self.try_run("systemctl", "is-system-running")[1].strip()

    def words(self, *command):
        """The command that runs one inside."""
        return ["nsenter", f"--target={self.pid}", "--all", *command]

    def try_run(self, *command, seconds=60):
        """The exit status of a command inside, and what it says."""
        done = subprocess.run(self.words(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=seconds * PATIENCE, check=False, env=ENVIRONMENT)
        return done.returncode, done.stdout

    def run(self, *command, status=0, seconds=60):
        code, said = self.try_run(*command, seconds=seconds)
        expect(code == status, f"'{' '.join(command)}' ended with {code}, not {status}: {said.strip()[-1500:]}")
        return said

    def terminal(self, *command):
        return Terminal(self.words(*command), ENVIRONMENT)

    def unit(self, name, *properties):
        """What systemd says of a unit; one value, or a tuple of them."""
        said = self.run("systemctl", "show", *[f"--property={key}" for key in properties], name)
        values = dict(line.split("=", 1) for line in said.splitlines())
        found = tuple(values[key] for key in properties)
        return found if len(found) > 1 else found[0]

    def journal(self, unit):
        """What it has logged since the last boot, which may be over. (All boots have the number of the host's.)"""
        run = self.system.run if self.pid is None else self.run
        return run("journalctl", "--no-pager", f"--since=@{self.booted:.6f}", f"--unit={unit}")

    def power_off(self, seconds=60):
        """As an administrator does it; returns how long it took."""
        begun = time.monotonic()
        # It may be gone before the tool has its answer.
        self.try_run("systemctl", "poweroff")
        try:
            self.outside.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"it is not off after {seconds} s; jobs: {self.try_run('systemctl', 'list-jobs')[1]}") from error
        self.sweep()
        return time.monotonic() - begun

    def sweep(self):
        self.pid = None
        words = ["unshare", "--mount", "sh", "-c", SWEEP, "sweep", str(self.root), self.group]
        # The last process of a namespace may be a moment from gone.
        wait_for(lambda: subprocess.run(words, capture_output=True, check=False).returncode == 0, 10, "its control group stays")

    def close(self):
        """Whatever state it is in: the first process takes all others along."""
        if self.outside is None:
            return
        if self.outside.poll() is None:
            self.outside.kill()
        self.outside.wait()
        try:
            self.sweep()
        except Failure:
            pass
