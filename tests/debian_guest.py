"""A Debian guest as `xm image build` makes it: its files, its console, ssh to it, and streams of data."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time

from rig import PATIENCE, Failure, expect, wait_for

PASSWORD = "x"


def build(rig, folder, *words):
    """The guest's files in a folder, made once."""
    if not (folder / "disk.img").exists():
        print(f"building a Debian guest, once, in {folder}", file=sys.stderr, flush=True)
        rig.must("image", "build", "debian:12", "-q", "-o", str(folder), "--root-password", PASSWORD, *words, timeout=1800)


def own_files(files, folder):
    """Copies of the guest's disk and swap space, which may be written."""
    copies = [folder / "disk.img", folder / "swap.img"]
    for copy in copies:
        if (files / copy.name).exists():
            subprocess.run(["cp", "--sparse=always", str(files / copy.name), str(copy)], check=True)
    return copies


class Debian:
    """A domain from a built guest's files, on whose console a person could log in."""

    def __init__(self, rig, name, files, disk, **keys):
        self.rig, self.name = rig, name
        values = {"kernel": str(files / "vmlinuz"), "ramdisk": str(files / "initrd.img"), "root": "/dev/xvda1 ro",
            "extra": "console=hvc0 sysrq_always_enabled", "disk": disk, **keys}
        self.terminal = rig.console("create", "-c", rig.config(name, **values))
        self.settle()

    def settle(self):
        try:
            self.terminal.until(r"login: ", 120)
        except BaseException:
            self.terminal.kill()
            raise
        self.seconds = time.monotonic() - self.terminal.started

    def log_in(self):
        self.terminal.type("root\n")
        self.terminal.until("Password: ", 30)
        self.terminal.type(PASSWORD + "\n")
        self.terminal.until(r"[#$] ", 30)
        # Neither echo nor prompts nor the kernel's messages between the answers.
        self.terminal.type("stty -echo; PS1= PS2= exec sh\n")
        time.sleep(1)
        self.terminal.type("dmesg -n 1; printf '%s-set\\n' shell\n")
        self.terminal.until("shell-set\n", 30)

    def run(self, line, seconds=60):
        """The output of a command on the console, which has to succeed."""
        self.terminal.type(f"{line}\nprintf '\\nstatus-%d\\n' $?\n")
        found = self.terminal.until(r"(?s)^(.*)\nstatus-(\d+)\n", seconds)
        expect(found.group(2) == "0", f"in the guest, '{line}' ended with {found.group(2)}: {found.group(1)[-800:]}")
        return found.group(1)

    def restarted(self, former):
        """Waits until the domain, which had the number `former`, has booted anew."""
        self.terminal.end(60)
        wait_for(lambda: self.name in self.rig.names() and self.number() != former, 30, "the domain does not restart")
        self.terminal = self.rig.console("console", self.name)
        self.settle()

    def number(self):
        return self.rig.must("domid", self.name).strip()

    def shut_down(self):
        """As a person does it: `xm shutdown -w`."""
        self.rig.must("shutdown", "-w", self.name, timeout=120)
        code = self.terminal.end(30)
        expect(code == 0, f"xm create -c ended with {code} after the domain was shut down")
        self.rig.gone(self.name)

    def end(self):
        self.rig.run("destroy", self.name)
        self.terminal.end()
        self.rig.gone(self.name)


class Ssh:
    """ssh as root with a key, through a port of the host; the guest's own key must stay what it is."""

    def __init__(self, rig, key, name, port):
        self.address = "root@127.0.0.1"
        options = {"Port": port, "IdentityFile": key, "IdentitiesOnly": "yes", "UserKnownHostsFile": rig.work / f"{name}.known",
            "GlobalKnownHostsFile": "/dev/null", "HostKeyAlias": name, "StrictHostKeyChecking": "accept-new", "BatchMode": "yes",
            "ConnectTimeout": int(10 * PATIENCE), "LogLevel": "ERROR"}
        self.options = ["-F", "/dev/null"] + [word for key, value in options.items() for word in ("-o", f"{key}={value}")]

    def command(self, line, *options):
        return ["ssh", *self.options, *options, self.address, line]

    def try_to_run(self, line, seconds=60, **options):
        """(exit status, standard output, standard error) of a line for the guest's shell."""
        try:
            done = subprocess.run(self.command(line), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=seconds * PATIENCE, check=False)
        except subprocess.TimeoutExpired as late:
            raise Failure(f"in the guest, '{line}' did not end in {late.timeout:.0f} s: {(late.stdout or b'')[-800:]!r}") from late
        return done.returncode, done.stdout, done.stderr

    def run(self, line, seconds=60):
        """The output of a line, which has to succeed."""
        code, out, err = self.try_to_run(line, seconds)
        expect(code == 0, f"in the guest, '{line}' ended with {code}: {out[-600:]}{err[-600:]}")
        return out

    def wait(self):
        """Until the guest's server answers."""
        wait_for(lambda: self.try_to_run("true")[0] == 0, 60, f"no ssh: {self.try_to_run('true')[2].strip()}")

    def copy(self, source, target):
        """scp; a name in the guest begins with `:`."""
        there = [self.address + str(name) if str(name).startswith(":") else str(name) for name in (source, target)]
        host("scp", *self.options, *there, seconds=120)


def host(*command, seconds=60):
    """The output of a command on the host, which has to succeed."""
    if not shutil.which(command[0]):
        raise Failure(f"there is no {command[0]}: scripts/setup installs it")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds * PATIENCE, check=False)
    expect(done.returncode == 0, f"'{' '.join(command)}' ended with {done.returncode}: {done.stderr.strip() or done.stdout[-800:]}")
    return done.stdout


# iperf3.


@contextlib.contextmanager
def stream_server(rig, prefix, address, port):
    """iperf3's server on the host; `prefix` are words before its command."""
    if not shutil.which("iperf3"):
        raise Failure("there is no iperf3: scripts/setup installs it")
    log = rig.work / "iperf3.log"
    with open(log, "w") as output:
        process = subprocess.Popen([*prefix, "iperf3", "--server", "--bind", address, "--port", str(port), "--forceflush"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "listening" in log.read_text() or process.poll() is not None, 10, "iperf3 does not listen")
        expect(process.poll() is None, f"iperf3's server ended: {log.read_text()}")
        yield
    finally:
        process.kill()
        process.wait()


def iperf3(address, port, seconds, *arguments):
    return ["iperf3", "--client", address, "--port", str(port), "--time", str(seconds), "--omit", "1", "--json", *arguments]


def document(text):
    """The JSON in a program's output, around which there may be messages."""
    try:
        return json.loads(text[text.index("{"):text.rindex("}") + 1])
    except ValueError:
        raise Failure(f"no JSON: {text[-800:]}") from None


def gigabits(text):
    """What arrived, in iperf3's output, in Gbit/s."""
    try:
        return document(text)["end"]["sum_received"]["bits_per_second"] / 1e9
    except (LookupError, TypeError):
        raise Failure(f"iperf3's output is not as expected: {text[-800:]}") from None


def gateway(run):
    """Where the host's loopback interface is, for a guest with a user-mode network: behind its gateway.
    `run` runs a line in the guest."""
    wait = "for i in $(seq 60); do ip route | grep -q ^default && break; sleep 0.5; done; ip -4 route show default"
    found = re.search(r"default via ([0-9.]+)", run(wait))
    expect(found, "the guest got no default route")
    return found.group(1)
