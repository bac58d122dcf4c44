"""Channels of configurations: streams between a guest's terminal and a socket or terminal of the host."""

import json
import os
import signal
import socket
import stat
import threading
import time

from lab import Guest, configuration, named, random_file, test, with_agent
from rig import PATIENCE, expect


def socket_channel(name, path):
    return f"name={name},connection=socket,path={path}"


def rows(rig, guest):
    """What is at the other end, by the channels' names."""
    listed = json.loads(rig.must("channel-list", "--json", guest.name))
    return {row["name"]: row for row in listed}


def connect(path):
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(20 * PATIENCE)
    peer.connect(str(path))
    return peer


def read(peer, count):
    data = b""
    while len(data) < count:
        piece = peer.recv(count - len(data)) if isinstance(peer, socket.socket) else os.read(peer, count - len(data))
        expect(piece, f"it ended after {len(data)} of {count} bytes")
        data += piece
    return data


def raw(guest, *consoles):
    """Has consoles pass on bytes as they are, as long as the shell has them open."""
    for number in consoles:
        guest.sh(f"exec {number + 2}<>/dev/hvc{number}; stty -F /dev/hvc{number} raw -echo")


def swap(peer, data):
    """Sends and reads as much."""
    sender = threading.Thread(target=peer.sendall, args=(data,), daemon=True)
    sender.start()
    got = read(peer, len(data))
    sender.join()
    return got


@test
def channels(rig):
    """A socket and a terminal, both ways, beside the agent; over a reboot; what nobody reads does not
    hold up the guest."""
    path = rig.work / "a channel.sock"
    list_of = [socket_channel("org.example.echo", path), "name=org.example.log,connection=pty"]
    guest = Guest(rig, "channels", ramdisk=with_agent(rig), channel=list_of, on_reboot="restart")
    expect(stat.S_IMODE(path.stat().st_mode) == 0o600, f"mode {path.stat().st_mode:o}")
    raw(guest, 1, 2)
    found = rows(rig, guest)
    expect(found["org.example.echo"]["state"] == "4" and found["org.example.log"]["state"] == "4", f"{found}")
    expect(found["org.example.echo"]["backend-nodes"]["path"] == str(path), f"{found}")
    table = rig.must("channel-list", guest.name).splitlines()
    expect(table[0].split() == ["Idx", "BE", "state", "evt-ch", "ring-ref", "connection", "params", "name"], table[0])
    expect("socket" in table[1] and str(path) in table[1] and table[1].endswith("org.example.echo"), table[1])

    # What is said before somebody comes is kept for them.
    guest.sh("echo early >/dev/hvc1")
    first = connect(path)
    expect(read(first, 6) == b"early\n", "what was said early")
    guest.sh("cat /dev/hvc1 >/dev/hvc1 & echo $! >/tmp/echo")
    every = bytes(range(256)) * 4
    expect(swap(first, every) == every, "bytes are changed on their way")
    much = os.urandom(512 << 10)
    expect(swap(first, much) == much, "a large stream is changed on its way")
    # One after the other.
    second = connect(path)
    second.sendall(b"second")
    expect(swap(first, b"first") == b"first", "the first one with a second one waiting")
    first.close()
    expect(read(second, 6) == b"second", "the second one, after the first has gone")
    # One that only asks gets its answer.
    second.close()
    asks = connect(path)
    asks.sendall(b"question")
    asks.shutdown(socket.SHUT_WR)
    expect(read(asks, 8) == b"question", "the answer to one that sends no more")

    terminal = os.open(found["org.example.log"]["backend-nodes"]["tty"], os.O_RDWR | os.O_NOCTTY)
    guest.sh("echo to the terminal >/dev/hvc2")
    expect(read(terminal, 16) == b"to the terminal\n", "the terminal")
    guest.start("head -c 5 /dev/hvc2; echo")
    os.write(terminal, b"hello")
    guest.finish("hello")
    os.close(terminal)

    # The agent has one of its own, behind these.
    code, out, err = rig.run("exec", guest.name, "echo", "agent")
    expect((code, out) == (0, "agent\n"), f"exec: {code} {out!r} {err!r}")
    expect(rig.must("channel-list", guest.name).splitlines()[3].split()[0] == "7", "the agent's number")

    # Four megabytes that nobody reads: the newest are kept, the guest goes on.
    asks.close()
    begin = time.monotonic()
    guest.sh("kill $(cat /tmp/echo); head -c 4194304 /dev/zero >/dev/hvc1; echo last >/dev/hvc1", seconds=60)
    took = time.monotonic() - begin
    late = connect(path)
    kept = read(late, 1 << 20)
    late.settimeout(1)
    try:
        while piece := late.recv(65536):
            kept += piece
    except TimeoutError:
        pass
    expect(kept.endswith(b"\0last\n") and len(kept) < 2 << 20, f"kept: {len(kept)} bytes, {kept[-20:]!r}")
    lines = [line for line in guest.log().splitlines() if "is lost" in line]
    expect(len(lines) == 1 and "channel 1" in lines[0], f"told: {lines}")
    print(f"    4 MiB without a reader in {took:.1f} s", flush=True)
    late.close()

    guest.reboot()
    raw(guest, 1)
    guest.sh("echo again >/dev/hvc1")
    after = connect(path)
    expect(read(after, 6) == b"again\n", "after a reboot")
    guest.off()
    expect(not path.exists(), "the socket outlives its domain")
    expect(after.recv(1) == b"", "its user is not told")


@test
def channel_process_killed(rig):
    """The process that serves channels is killed: another one goes on, with the same socket."""
    path = rig.work / "served.sock"
    guest = Guest(rig, "served", channel=[socket_channel("org.example.echo", path)])
    raw(guest, 1)
    guest.sh("cat /dev/hvc1 >/dev/hvc1 & true")
    peer = connect(path)
    expect(swap(peer, b"before") == b"before", "before")
    guest.kill("xenchannel")
    expect(peer.recv(1) == b"", "its user is not told")
    again = connect(path)
    expect(swap(again, b"after") == b"after", "after")
    guest.off()


@test
def sockets_of_others(rig):
    """A path that is somebody's is left alone; what a killed domain left is taken over."""
    path = rig.work / "one.sock"
    one = Guest(rig, "one", channel=[socket_channel("org.example.one", path)])
    other = configuration(rig, "other", channel=[socket_channel("org.example.one", path)])
    code, _, err = rig.run("create", other)
    expect(code != 0 and "listens at" in err and str(path) in err and "channel[0]" in err, f"{code} {err!r}")
    expect(named(rig, "other") not in rig.names(), "the second domain is there")
    raw(one, 1)
    one.sh("echo mine >/dev/hvc1")
    expect(read(connect(path), 5) == b"mine\n", "the first one's socket")
    runner, = one.pids("xendomain")
    os.kill(runner, signal.SIGKILL)
    one.terminal.end(30)
    rig.gone(one.name)
    expect(path.is_socket(), "a killed domain cannot have removed it")
    two = Guest(rig, "two", channel=[socket_channel("org.example.two", path)])
    raw(two, 1)
    two.sh("echo two >/dev/hvc1")
    expect(read(connect(path), 4) == b"two\n", "the second one's socket")
    two.off()
    random_file(path, 100)
    code, _, err = rig.run("create", other)
    expect(code != 0 and "no socket" in err, f"{code} {err!r}")
    expect(path.stat().st_size == 100, "somebody's file was changed")
    code, _, err = rig.run("create", configuration(rig, "far",
        channel=[socket_channel("org.example.far", rig.work / "none/there.sock")]))
    expect(code != 0 and "there.sock" in err and "No such file" in err, f"{code} {err!r}")
