"""Measures disks and network interfaces of a Debian guest, and its boot, with the host's own figures.

The guest is made once by `xm image build` (a mirror is needed for that), and each boot starts from a
copy of its disk. The disk that is measured lies in the host's page cache; natively the same file
is read and written with the same arguments, so that the difference is what the way to it costs.
"""

import contextlib
import os
import pathlib
import re
import statistics
import subprocess
import sys

from debian_guest import Debian, build, document, gateway, gigabits, host, iperf3, own_files, stream_server
from lab import free_port
from rig import OUT, Failure, expect, wait_for

IMAGE = OUT / "devbench"
PACKAGES = "fio,iperf3,iputils-ping"
# MiB of the disk that is measured and of the file that the guest keeps in its own page cache.
DATA, CACHED = 512, 128
ROUNDS = 3
# Seconds of each run of fio and iperf3.
SECONDS = 3
# The host's end of the tap, and the guest's, in a network namespace of their own.
HOST, GUEST, BRIDGE, PORT = "10.77.0.1", "10.77.0.2", "xenbr0", 5201

# Through the guest's own page cache: no block back end, only the guest's system calls and memory.
CACHED_ARGUMENTS = ["--ioengine=psync", "--invalidate=0", f"--size={CACHED}M"]
DISK_ARGUMENTS = ["--ioengine=libaio", "--invalidate=0", f"--size={DATA}M"]
# Name → (fio's mode, block size, requests under way, what is reported, its unit).
FIO = {
    "fio_cached_randread": ("randread", "4k", 1, "iops", "kIOPS"),
    "fio_cached_seqread": ("read", "1M", 1, "bandwidth", "MiB/s"),
    "fio_cached_randwrite": ("randwrite", "4k", 1, "iops", "kIOPS"),
    "fio_disk_randread": ("randread", "4k", 32, "iops", "kIOPS"),
    "fio_disk_seqread": ("read", "1M", 8, "bandwidth", "MiB/s"),
    "fio_disk_randread_qd1": ("randread", "4k", 1, "latency", "us"),
    "fio_disk_randwrite": ("randwrite", "4k", 32, "iops", "kIOPS"),
    "fio_disk_seqwrite": ("write", "1M", 8, "bandwidth", "MiB/s"),
    "fio_disk_randwrite_qd1": ("randwrite", "4k", 1, "latency", "us"),
}
# Up is from the guest to the host.
TCP = {"up": [], "down": ["--reverse"]}
# What of a ping the host takes without any guest: relay.c answers behind a tap of its own.
RELAY, RELAY_TAP, RELAY_HOST, RELAY_GUEST = "ping_tap_relay", "relay0", "10.78.0.1", "10.78.0.2"
# Name → who is asked, ping's other arguments.
PING = {
    "ping_tap": (GUEST, ["-c", "100", "-i", "0.01"]),
    RELAY: (RELAY_GUEST, ["-c", "100", "-i", "0.01"]),
    "ping_tap_1s": (GUEST, ["-c", "5", "-i", "1"]),
}
NAMES = ["debian_login", *FIO, *(f"tcp_user_{way}" for way in TCP), *(f"tcp_tap_{way}" for way in TCP), *PING]


def selected(only):
    """The measures that a list of names asks for, and the names that are none of them. A name may be
    the beginning of several: fio, fio_disk, tcp."""
    words = only.split(",")
    if only == "all":
        return list(NAMES), words

    def means(word, name):
        return name == word or name.startswith(word + "_")

    chosen = [name for name in NAMES if any(means(word, name) for word in words)]
    return chosen, [word for word in words if not any(means(word, name) for name in NAMES)]


class Results:
    """Values of all rounds, of the guest and of the host."""

    def __init__(self):
        self.guest, self.native, self.units = {}, {}, {}

    def add(self, name, unit, guest, native=None):
        self.units[name] = unit
        self.guest.setdefault(name, []).append(guest)
        if native is not None:
            self.native.setdefault(name, []).append(native)

    def medians(self, side):
        """Name → (median, unit)."""
        return {name: (statistics.median(values), self.units[name]) for name, values in side.items()}


def fio(name, file, direct):
    """The command line of a measure."""
    mode, block, depth, _, _ = FIO[name]
    kind = CACHED_ARGUMENTS if name.startswith("fio_cached") else DISK_ARGUMENTS
    return ["fio", f"--name={name}", f"--filename={file}", f"--rw={mode}", f"--bs={block}", f"--iodepth={depth}",
        f"--direct={direct}", f"--runtime={SECONDS}", "--time_based", "--output-format=json", *kind]


def fio_value(name, text):
    """A measure's value in fio's output."""
    mode, _, _, what, _ = FIO[name]
    try:
        job = document(text)["jobs"][0]["write" if "write" in mode else "read"]
        return {"iops": job["iops"] / 1e3, "bandwidth": job["bw_bytes"] / 2**20, "latency": job["lat_ns"]["mean"] / 1e3}[what]
    except (LookupError, TypeError):
        raise Failure(f"fio's output is not as expected: {text[-800:]}") from None


def into_page_cache(path):
    with open(path, "rb") as file:
        while file.read(2**20):
            pass


def disks(guest, data, names, results):
    names = [name for name in names if name in FIO]
    if not names:
        return
    if any(name.startswith("fio_cached") for name in names):
        guest.run(f"dd if=/dev/xvdb of=/root/cached bs=1M count={CACHED} 2>&1 && sync")
    for _ in range(ROUNDS):
        for name in names:
            cached = name.startswith("fio_cached")
            # Nothing of the run before is still to be written.
            host("sync", str(data))
            into_page_cache(data)
            native = fio_value(name, host(*fio(name, data, 0)))
            host("sync", str(data))
            if cached:
                guest.run("sync; cat /root/cached >/dev/null")
            line = " ".join(fio(name, "/root/cached", 0) if cached else fio(name, "/dev/xvdb", 1))
            results.add(name, FIO[name][4], fio_value(name, guest.run(line)), native)


def streams(guest, kind, prefix, seen_from, names, results):
    """TCP from a guest to the host and back; `seen_from` gives, for the host and for the guest, the
    address and port of the server. Natively: over the loopback interface."""
    (address, port), (guests_address, _) = seen_from
    for _ in range(ROUNDS):
        for way, arguments in TCP.items():
            name = f"tcp_{kind}_{way}"
            if name in names:
                native = gigabits(host(*prefix, *iperf3(address, port, SECONDS, *arguments)))
                ours = gigabits(guest.run(" ".join(iperf3(guests_address, port, SECONDS, *arguments))))
                results.add(name, "Gbit/s", ours, native)


def user_mode(rig, guest, names, results):
    """passt leads connections to the guest's gateway to the host's loopback interface."""
    port = free_port()
    with stream_server(rig, [], "127.0.0.1", port):
        streams(guest, "user", [], (("127.0.0.1", port), (gateway(guest.run), port)), names, results)


@contextlib.contextmanager
def namespace(rig):
    """A network namespace with a bridge; xm runs inside of it. Gives the words to run a command there."""
    name = f"xenolith-bench-{os.getpid()}"
    prefix = ["ip", "netns", "exec", name]
    host("ip", "netns", "add", name)
    try:
        for words in ("link set lo up", f"link add {BRIDGE} type bridge", f"addr add {HOST}/24 dev {BRIDGE}", f"link set {BRIDGE} up"):
            host("ip", "-n", name, *words.split())
        rig.prefix = prefix
        yield prefix
    finally:
        rig.prefix = []
        # The namespace lives as long as a process in it.
        rig.destroy_all()
        host("ip", "netns", "del", name)


def round_trip(prefix, address, arguments):
    """Median of the round trips, in microseconds."""
    # -n: no questions to name servers.
    text = host(*prefix, "ping", "-n", *arguments, address)
    times = [float(value) for value in re.findall(r"time=([0-9.]+) ms", text)]
    expect(times, f"no round trip in ping's output: {text}")
    return statistics.median(times) * 1e3


@contextlib.contextmanager
def relay(prefix):
    """Two processes that do what a guest and its back end do for a ping, and nothing else."""
    program = OUT / "relay"
    host("gcc", "-O2", "-o", str(program), str(pathlib.Path(__file__).parent / "relay.c"))
    with subprocess.Popen([*prefix, str(program), RELAY_TAP]) as process:
        try:
            wait_for(lambda: RELAY_TAP in host(*prefix, "ip", "-o", "link"), 10, "no tap of the relay")
            for words in (f"addr add {RELAY_HOST}/24 dev {RELAY_TAP}", f"link set {RELAY_TAP} up"):
                host(*prefix, "ip", *words.split())
            yield
        finally:
            process.kill()


def tap(rig, names, results):
    with namespace(rig) as prefix:
        guest = debian(rig, f"bridge={BRIDGE}")
        guest.log_in()
        # There is no DHCP server, and its client takes addresses away when it gives up.
        guest.run("pkill dhclient; sleep 1; ip addr flush dev eth0; "
            f"ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up && ping -c 1 -w 10 {HOST}")
        if any(name.startswith("tcp") for name in names):
            with stream_server(rig, prefix, HOST, PORT):
                streams(guest, "tap", prefix, ((HOST, PORT), (HOST, PORT)), names, results)
        with relay(prefix) if RELAY in names else contextlib.nullcontext():
            for _ in range(ROUNDS):
                pings(prefix, names, results)
        guest.end()


def pings(prefix, names, results):
    for name, (address, arguments) in PING.items():
        if name in names:
            native = round_trip(prefix, "127.0.0.1", arguments)
            results.add(name, "us", round_trip(prefix, address, arguments), native)


def debian(rig, vif, data=None):
    root, _ = own_files(IMAGE, rig.base)
    disk = [f"file:{root},xvda1,w"] + ([f"file:{data},xvdb,w"] if data else [])
    return Debian(rig, "devices", IMAGE, disk, memory=512, vif=[vif])


def measure(rig, names):
    """Measures; gives the medians of the guest and of the host."""
    results = Results()
    local = [name for name in names if name.startswith(("fio", "tcp_user"))]
    tapped = [name for name in names if "_tap" in name]
    build(rig, IMAGE, "--packages", PACKAGES, "--hostname", "bench")
    data = rig.base / "data.img"
    if local:
        with open(data, "wb") as file:
            for _ in range(DATA):
                file.write(os.urandom(2**20))
    boots = ROUNDS if "debian_login" in names else 1 if local else 0
    for number in range(boots):
        guest = debian(rig, "", data if local else None)
        if "debian_login" in names:
            results.add("debian_login", "s", guest.seconds)
        if local and number == boots - 1:
            guest.log_in()
            disks(guest, data, local, results)
            if any(name.startswith("tcp") for name in local):
                user_mode(rig, guest, local, results)
        guest.end()
    if tapped and os.geteuid() != 0:
        print(f"bench: not measured without root: {' '.join(tapped)}", file=sys.stderr)
    elif tapped:
        tap(rig, tapped, results)
    return results.medians(results.guest), results.medians(results.native)
