"""What the end-to-end tests stand on: programs, configuration files, consoles."""

import errno
import http.client
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time

import diagnosis

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = pathlib.Path(os.environ.get("OUT", ROOT / "out"))
PROGRAMS = {"xm": "bin", "xendomain": "libexec/xenolith", "space": "libexec/xenolith",
    "xend": "libexec/xenolith", "xenstored": "libexec/xenolith", "xenblock": "libexec/xenolith", "xennet": "libexec/xenolith",
    "xenchannel": "libexec/xenolith", "xenguest": "libexec/xenolith"}
READY = r"xenolith-ready [0-9.]+"
PROMPT = r":[^\r\n]*# "
# All waits are so many times as long: for slow machines (scripts/keyed-host).
PATIENCE = float(os.environ.get("XENOLITH_TEST_PATIENCE", "1"))


class Failure(Exception):
    """A test found something wrong."""


def expect(good, message):
    if not good:
        raise Failure(message)


def verdict(passed, failed, skipped):
    """The last lines of a test program, and its exit status. `failed` are names with reasons, whose first
    lines are told again here: of a long output the end is what is read."""
    for name, why in failed.items():
        print(f"failed: {name}: {(str(why).strip() or '?').splitlines()[0][:240]}")
    print(f"{passed} passed, {len(failed)} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


def failed_inside(done):
    """What a test program says of its failures that ran for another test."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    return "; ".join(lines) or done.stderr.strip()[-800:] or f"status {done.returncode}"


def readable(folder):
    """Lets every user read what is in a folder."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))


def as_user(uid, folder, *words):
    """A command that runs a python script of `folder` as an ordinary user without capabilities,
    and its environment."""
    readable(folder)
    python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
    command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
        "--no-new-privs", python, *words]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "XENOLITH_"))}
    environment.update(HOME="/nonexistent", PYTHONDONTWRITEBYTECODE="1", XENOLITH_TEST_PATIENCE=str(PATIENCE))
    return command, environment


class Rig:
    """Programs and images in a folder that every user may read, and the run-time folders of one
    test run. `kernels` are the names in out/kernels that are there."""

    def __init__(self, folder=None, binaries=None):
        if folder is None:
            folder = tempfile.mkdtemp(prefix="xenolith-test.", dir="/var/tmp")
            os.chmod(folder, 0o755)
            self.owned = True
            self.base = pathlib.Path(folder)
            self._stage(pathlib.Path(binaries or ROOT / "target/release"))
        else:
            self.owned = False
            self.base = pathlib.Path(folder)
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="xe.", dir="/tmp"))
        self.environment = dict(
            os.environ,
            XENOLITH_RUNTIME_DIR=str(self.work / "run"),
            XENOLITH_STATE_DIR=str(self.work / "log"),
            NO_COLOR="1",
        )
        for name in ("XENOLITH_XENDOMAIN", "XENOLITH_SPACE", "XENOLITH_XENSTORED", "XENOLITH_XENBLOCK", "XENOLITH_XENNET", "XENOLITH_XENCHANNEL",
                "XENOLITH_XEND", "XENOLITH_LOG", "XENOLITH_LOG_FORMAT"):
            self.environment.pop(name, None)
        # Words before each command: another user, say.
        self.prefix = []
        self.last_surroundings = None
        # What the guest of the test that runs can tell when it fails: a function of no arguments, or None.
        self.witness = None
        self.kernels = sorted(path.name for path in (self.base / "kernels").iterdir())

    def _stage(self, binaries):
        # As `make install` lays them out.
        for name, folder in PROGRAMS.items():
            (self.base / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy2(binaries / name, self.base / folder / name)
        os.symlink("xm", self.base / "bin/xl")
        for kernel in sorted((OUT / "kernels").glob("[a-z]*")):
            (self.base / "kernels" / kernel.name).mkdir(parents=True)
            shutil.copy2(kernel / "vmlinuz", self.base / "kernels" / kernel.name / "vmlinuz")
        for image in OUT.glob("*.cpio"):
            if image.name == "soak.cpio":
                continue  # large, and read where it lies
            shutil.copy2(image, self.base / image.name)
        readable(self.base)

    def close(self):
        self.destroy_all()
        self.end_daemon()
        shutil.rmtree(self.work, ignore_errors=True)
        if self.owned:
            shutil.rmtree(self.base, ignore_errors=True)

    def kernel(self, name="cloud"):
        return self.base / "kernels" / name / "vmlinuz"

    def config(self, name, without=(), text=None, **keys):
        """Writes a configuration file like the lecture's; `keys` change it, and `without` names
        keys to leave out."""
        values = {
            "kernel": str(self.kernel()),
            "ramdisk": str(self.base / "initramfs.cpio"),
            "builder": "linux",
            "memory": 256,
            "name": name,
            "vcpus": 1,
            "extra": f"console=hvc0 quiet hostname={name}",
        }
        values.update(keys)
        path = self.work / f"{name}.cfg"
        lines = [f"{key} = {value!r}" for key, value in values.items() if key not in without]
        path.write_text(text if text is not None else "\n".join(lines) + "\n")
        return str(path)

    def renew_daemon(self):
        """The daemon has the wrapper and the environment of the command that started it. When those
        have changed, the next command starts another one, which adopts the domains."""
        surroundings = (list(self.prefix), dict(self.environment))
        if self.last_surroundings not in (None, surroundings):
            self.end_daemon()
        self.last_surroundings = surroundings

    def run(self, *words, timeout=60, program="xm"):
        """Runs xm and returns (exit code, standard output, standard error)."""
        self.renew_daemon()
        done = subprocess.run(
            [*self.prefix, str(self.base / "bin" / program), *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout * PATIENCE,
        )
        return done.returncode, done.stdout, done.stderr

    def begin(self, *words):
        """Starts xm, to be waited for."""
        return subprocess.Popen([*self.prefix, str(self.base / "bin/xm"), *words], env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")

    def must(self, *words, **options):
        code, out, err = self.run(*words, **options)
        expect(code == 0, f"xm {' '.join(words)} ended with {code}: {err.strip() or out.strip()}")
        return out

    def names(self):
        """Names of the domains that `xm list` shows, without Domain-0."""
        rows = self.must("list").splitlines()[1:]
        return [row.split()[0] for row in rows if row and row.split()[0] != "Domain-0"]

    def state(self, name):
        rows = [row for row in self.must("list").splitlines() if row.split()[:1] == [name]]
        return rows[0].split()[-2] if rows else None

    def destroy_all(self):
        try:
            for name in self.names():
                self.run("destroy", name)
        except (Failure, subprocess.SubprocessError, OSError):
            pass

    def daemon(self):
        """Process number of this rig's xend, or None."""
        try:
            pid = int((self.work / "run/xend/lock").read_text())
            ours = f"XENOLITH_RUNTIME_DIR={self.work / 'run'}".encode()
            named = pathlib.Path(f"/proc/{pid}/comm").read_text() == "xend\n"
            return pid if named and ours in pathlib.Path(f"/proc/{pid}/environ").read_bytes() else None
        except (OSError, ValueError):
            return None

    def end_daemon(self, number=signal.SIGTERM):
        """Ends this rig's xend, if it runs; the next command starts another one."""
        pid = self.daemon()
        if pid is not None:
            os.kill(pid, number)
            # Somebody may have started the next one already.
            wait_for(lambda: self.daemon() != pid, 10, "xend does not end")

    def processes(self):
        """Process numbers of this rig's xendomain and space processes, by program name."""
        found = {"xendomain": [], "space": []}
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                comm = (entry / "comm").read_text().strip()
                if comm not in found:
                    continue
                environment = (entry / "environ").read_bytes() if comm == "xendomain" else b""
                ours = str(self.work / "run").encode() in environment
                if comm == "space" or ours:
                    found[comm].append(int(entry.name))
            except (OSError, ValueError):
                continue
        family = set(found["xendomain"])
        found["space"] = [pid for pid in found["space"] if self.descends(pid, family)]
        return found

    def family(self, name):
        """A domain's processes: numbers of its xendomain and of all that descends from it, and their
        programs' names."""
        mine = set()
        for entry in (self.work / "run/domains").glob("*/info.json"):
            try:
                facts = json.loads(entry.read_text())
            except (OSError, ValueError):
                continue
            if facts["name"] == name:
                mine.add(facts["pid"])
        found = {}
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            pid = int(entry.name)
            try:
                if pid in mine or self.descends(pid, mine):
                    found[pid] = (entry / "comm").read_text().strip()
            except OSError:
                continue
        return found

    def has_runners(self, name):
        """Does the domain run guest programs in processes of their own?"""
        return "by protection keys" not in (self.work / "log" / f"{name}.log").read_text()

    @staticmethod
    def busiest(pids, seconds=0.5):
        """The process that uses most of the processor now."""
        def ticks(pid):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        before = {pid: ticks(pid) for pid in pids}
        time.sleep(seconds)
        return max(pids, key=lambda pid: ticks(pid) - before[pid])

    @staticmethod
    def largest(pids):
        """The process that uses most memory now."""
        return max(pids, key=lambda pid: int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]))

    @staticmethod
    def parent(pid):
        """The number of a process's parent, 0 if it is gone."""
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return 0
        return int(stat.rsplit(")", 1)[1].split()[1])

    @staticmethod
    def descends(pid, ancestors):
        while pid > 1:
            pid = Rig.parent(pid)
            if pid in ancestors:
                return True
        return False

    def gone(self, name, seconds=20):
        """Waits until `xm list` does not show the domain any more."""
        wait_for(lambda: name not in self.names(), seconds, f"domain {name} is still listed")

    def console(self, *words):
        self.renew_daemon()
        command = [*self.prefix, str(self.base / "bin/xm"), *words]
        return Terminal(command, self.environment, lambda: diagnosis.of(self))


class DaemonConnection(http.client.HTTPConnection):
    """HTTP on the daemon's socket of a run-time directory."""

    def __init__(self, run):
        super().__init__("xend", timeout=60 * PATIENCE)
        self.place = str(run / "xend/socket")

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.place)


def wait_for(condition, seconds, message):
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < end, f"{message} after {seconds} s")
        time.sleep(0.02)


class Terminal:
    """A program on a terminal of its own, driven as a person would."""

    def __init__(self, command, environment, diagnose=lambda: ""):
        """`diagnose` tells what may be known when a wait was in vain."""
        self.seen = ""
        self.diagnose = diagnose
        self.started = time.monotonic()
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe(command[0], command, dict(environment, TERM="xterm"))
            finally:
                os._exit(127)
        self.status = None

    def _read(self, seconds):
        ready, _, _ = select.select([self.terminal], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.terminal, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        # Carriage returns tell nothing here, and depend on the terminal's mode.
        self.seen += data.decode(errors="replace").replace("\r", "")
        return bool(data)

    def until(self, pattern, seconds=60):
        """Reads until the pattern appears and forgets everything up to its end."""
        seconds *= PATIENCE
        end = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.seen)
            if found:
                self.seen = self.seen[found.end():]
                return found
            left = end - time.monotonic()
            if left <= 0:
                raise Failure(f"no {pattern!r} within {seconds} s; seen: {self.seen[-1500:]!r}{self._diagnosis()}")
            expect(self._read(min(left, 1)), f"ended before {pattern!r}; seen: {self.seen[-1500:]!r}")

    def _diagnosis(self):
        """What there is to tell, and what came of it here: a guest that was asked tells it on its console."""
        told, self.seen = self.diagnose(), ""
        end = time.monotonic() + 2
        while told and time.monotonic() < end and self._read(0.5):
            pass
        return told + (f"\n--- and then ---\n{self.seen[-20000:]}" if self.seen else "")

    def type(self, text):
        os.write(self.terminal, text.encode())

    def command(self, line, pattern, seconds=30):
        """Types a line at the guest's prompt and waits for the pattern, then the next prompt.
        The pattern must not match the echo of the line."""
        self.type(line + "\n")
        found = self.until(pattern, seconds)
        self.until(PROMPT, seconds)
        return found

    def cooked(self):
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ICANON)

    def end(self, seconds=30):
        """Waits until the program ends; returns its exit code (or minus the signal)."""
        seconds *= PATIENCE
        limit = time.monotonic() + seconds
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                break
            expect(time.monotonic() < limit, f"still running after {seconds} s; seen: {self.seen[-800:]!r}")
            self._read(0.05)
        while self._read(0) and select.select([self.terminal], [], [], 0)[0]:
            pass
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(self.status)

    def kill(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.status = 0
            os.close(self.terminal)
