"""Network interfaces: the user-mode network, bridges, hot plug, back ends that die."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

from lab import (FileServer, Guest, Namespace, backends, for_each_kernel, free_port, md5, need, random_file, records, test)
from disks import kill_store
from rig import OUT, expect, wait_for

LEASE = "ip link set eth0 up && udhcpc -i eth0 -n -q -O mtu -s /devices/dhcp >/dev/null 2>&1"


def gateway(guest):
    """Takes a lease; the address of the gateway, behind which the host's loopback is."""
    guest.sh(LEASE)
    expect(guest.sh("cat /sys/class/net/eth0/mtu").strip() == "65520", "the MTU is not the one that the lease says")
    return guest.sh("ip route").split("default via ")[1].split()[0]


def fetched(url, seconds=60):
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return answer.read()


@test
def user_network(rig):
    """A lease, a file from the host's loopback, and ports of the host led to the guest."""
    need("passt", "passt")
    folder = rig.work / "served"
    folder.mkdir(exist_ok=True)
    sent = random_file(folder / "sent", 50 << 20)
    port = free_port()
    with FileServer(folder) as server:
        guest = Guest(rig, "user", memory=320, vif=[f"mac=00:16:3e:11:22:33,ports={port}:80"])
        expect("00:16:3e:11:22:33" in guest.sh("cat /sys/class/net/eth0/address"), "it has another MAC address")
        url = f"http://{gateway(guest)}:{server.port}/sent"
        guest.sh(f"mkdir /tmp/www && wget -q -O /tmp/www/sent {url}", 60)
        expect(guest.sh("md5sum </tmp/www/sent").split()[0] == md5(sent), "the file did not come as it was")
        guest.sh("httpd -h /tmp/www && echo a-page >/tmp/www/page.txt")
        expect(fetched(f"http://127.0.0.1:{port}/page.txt") == b"a-page\n", "another page")
        expect(fetched(f"http://127.0.0.1:{port}/sent") == sent.read_bytes(), "the file did not come back as it was")
        guest.off()
    # The port is free again.
    socket.create_server(("127.0.0.1", port)).close()


@for_each_kernel
def lease(rig, kernel):
    need("passt", "passt")
    folder = rig.work / "served"
    folder.mkdir(exist_ok=True)
    sent = random_file(folder / f"for-{kernel}", 4 << 20)
    with FileServer(folder) as server:
        guest = Guest(rig, "lease", vif=[""], kernel=str(rig.kernel(kernel)))
        guest.sh(f"wget -q -O /tmp/sent http://{gateway(guest)}:{server.port}/{sent.name}", 60)
        expect(guest.sh("md5sum </tmp/sent").split()[0] == md5(sent), "the file did not come as it was")
        guest.off()


@test
def several_queues(rig):
    """A front end with three queues, for which one vCPU is enough if it is told to."""
    need("passt", "passt")
    folder = rig.work / "served"
    folder.mkdir(exist_ok=True)
    sent = random_file(folder / "by-queues", 8 << 20)
    with FileServer(folder) as server:
        guest = Guest(rig, "queues", memory=320)
        guest.sh("rmmod xen_netfront && insmod /lib/modules/$(uname -r)/xen-netfront.ko max_queues=3")
        rig.must("network-attach", guest.name)
        guest.wait_until("[ -e /sys/class/net/eth0 ]", "the interface does not come")
        url = f"http://{gateway(guest)}:{server.port}/{sent.name}"
        for end in "tx", "rx":
            count = guest.sh(f"ls -d /sys/class/net/eth0/queues/{end}-* | wc -l").strip()
            expect(count == "3", f"{count} {end} queues")
        # Linux chooses a queue for each connection.
        fetch = "".join(f"wget -q -O /tmp/{number} {url} & " for number in range(12))
        guest.sh(f"{fetch} wait", 60)
        found = set(guest.sh("md5sum /tmp/[0-9]* | cut -d ' ' -f 1").split())
        expect(found == {md5(sent)}, f"files did not come as they were: {found}")
        # So many that a queue without any is as good as impossible.
        small = random_file(folder / "small", 4 << 10)
        guest.sh(f"for number in $(seq 60); do wget -q -O /dev/null {url.rsplit('/', 1)[0]}/{small.name} || break; done", 60)
        counts = [line.split() for line in guest.sh("grep vif0-q /proc/interrupts").splitlines()]
        idle = [words[-1] for words in counts if int(words[1]) == 0]
        expect(len(counts) == 6 and not idle, f"queues without an event: {idle} of {counts}")
        guest.off()


@test
def hot_plug_interfaces(rig):
    need("passt", "passt")
    guest = Guest(rig, "netplug")
    rig.must("network-attach", guest.name, "mac=00:16:3e:44:55:66")
    guest.wait_until("[ -e /sys/class/net/eth0 ]", "the new interface does not come")
    rows = rig.must("network-list", guest.name).splitlines()
    expect(len(rows) == 2 and rows[1].split()[0] == "0" and "00:16:3e:44:55:66" in rows[1], f"network-list: {rows}")
    gateway(guest)
    wait_for(lambda: rig.must("network-list", guest.name).splitlines()[1].split()[4] == "4", 10, "it is not connected")
    found = backends(rig), records(rig)
    expect(found == ([f"vif/{guest.number()}"], ["macs/00:16:3e:44:55:66"]), f"nodes and locks: {found}")
    code, _, err = rig.run("network-attach", guest.name, "bridge=nobridge")
    expect(code != 0 and "nobridge" in err, f"no such bridge: {code} {err!r}")
    rig.must("network-attach", guest.name)
    guest.wait_until("[ -e /sys/class/net/eth1 ]", "the second interface does not come")
    rig.must("network-detach", guest.name, "00:16:3e:44:55:66")
    guest.wait_until("[ ! -e /sys/class/net/eth0 ]", "the guest still has the interface")
    rows = rig.must("network-list", guest.name).splitlines()
    expect([row.split()[0] for row in rows[1:]] == ["1"], f"network-list: {rows}")
    rig.must("network-detach", "-f", guest.name, "1")
    expect(rig.must("network-list", guest.name) == "", "it is still listed")
    code, _, err = rig.run("network-detach", guest.name, "7")
    expect(code != 0 and err, f"detach of none: {code} {err!r}")
    wait_for(lambda: not records(rig), 5, "the addresses are still in use")
    guest.off()


@test
def network_killed(rig):
    """Back end, user-mode network and store are killed while the guest fetches a file again and again:
    what comes whole is right, and it goes on."""
    need("passt", "passt")
    folder = rig.work / "served"
    folder.mkdir(exist_ok=True)
    sent = random_file(folder / "again", 6 << 20)
    with FileServer(folder) as server:
        guest = Guest(rig, "fetcher", vif=[""])
        url = f"http://{gateway(guest)}:{server.port}/again"
        guest.sh(f"(/devices/fetch {url} {md5(sent)} >/tmp/result) & true")
        for program in ("xennet", "passt", "xenstored", "passt", "xennet"):
            time.sleep(0.7)
            if program == "xenstored":
                kill_store(rig)
            else:
                guest.kill(program)
                wait_for(lambda p=program: p in {comm.split(".")[0] for comm in rig.family(guest.name).values()}, 10,
                    f"no other {program} was started")
        time.sleep(0.5)
        guest.sh("touch /tmp/enough")
        guest.wait_until("[ -s /tmp/result ]", "the last file does not come", 20)
        result = guest.sh("cat /tmp/result")
        good, bad, broken = map(int, re.search(r"fetched (\d+) whole, (\d+) wrong, (\d+) broken", result).groups())
        expect(good >= 3 and bad == 0, result)
        # It works as before.
        guest.sh(f"timeout 10 wget -q -O /tmp/last {url}")
        expect(guest.sh("md5sum </tmp/last").split()[0] == md5(sent), "the file did not come as it was")
        guest.off()


@test
def network_falls_silent(rig):
    """A user-mode network that does nothing any more is noticed and replaced; one that is idle is not."""
    need("passt", "passt")
    folder = rig.work / "served"
    folder.mkdir(exist_ok=True)
    sent = random_file(folder / "silent", 1 << 20)
    with FileServer(folder) as server:
        guest = Guest(rig, "silent", vif=[""])
        url = f"http://{gateway(guest)}:{server.port}/silent"
        fetch = f"timeout 5 wget -q -O /tmp/sent {url}"
        guest.sh(fetch)
        first = guest.pids("passt")
        time.sleep(10)
        expect(guest.pids("passt") == first, "an idle network was replaced")
        guest.kill("passt", signal.SIGSTOP)
        guest.wait_until(fetch, "the guest's network does not come back", 60)
        expect(guest.pids("passt") not in (first, []), "there is no other network")
        expect(re.search(r'the user-mode network does not answer any more.*device="vif 0"', guest.log()), "the log says nothing of it")
        expect(guest.sh("md5sum </tmp/sent").split()[0] == md5(sent), "the file did not come as it was")
        # The network stops together with all else, as on a host that sleeps: that is no reason.
        last = guest.pids("passt")
        family = [pid for pid, comm in rig.family(guest.name).items() if comm != "xm"]
        for how in (signal.SIGSTOP, signal.SIGCONT):
            for pid in family:
                os.kill(pid, how)
            time.sleep(10 if how == signal.SIGSTOP else 1)
        guest.sh(fetch)
        expect(guest.pids("passt") == last, "the network was replaced after a pause of the host")
        guest.off()


# Stands in for passt: it answers the first question, then writes a length that cannot be.
NONSENSE = """#!/usr/bin/env python3
import os, socket, sys
mark = {mark!r}
if os.path.exists(mark):
    os.execv({passt!r}, ["passt", *sys.argv[1:]])
open(mark, "w").close()
wire = socket.socket(fileno=0)
wire.recv(4)
asked = wire.recv(42)
wire.sendall(bytes([0, 0, 0, 42]) + asked[6:12] + b"\\2" * 6 + asked[12:21] + b"\\2" + b"\\2" * 6 + asked[38:42] + asked[22:32])
wire.recv(1)
wire.sendall(b"\\xff" * 8)
while wire.recv(65536):
    pass
"""


@test
def network_talks_nonsense(rig):
    need("passt", "passt")
    folder = rig.work / "nonsense"
    folder.mkdir()
    program = folder / "passt"
    program.write_text(NONSENSE.format(mark=str(folder / "mark"), passt=shutil.which("passt")))
    program.chmod(0o755)
    path = rig.environment["PATH"]
    rig.environment["PATH"] = f"{folder}:{path}"
    try:
        guest = Guest(rig, "nonsense", vif=[""])
        guest.wait_until(f"{LEASE}", "the guest gets no network", 60)
        expect("sent a frame of 4294967295 bytes" in guest.log(), f"the log says nothing of it: {guest.log()[-500:]}")
        guest.off()
    finally:
        rig.environment["PATH"] = path


@test
def bridge(rig):
    """Two guests and the host on a bridge; a connection outlives the death of the back end."""
    folder = rig.work / "bridged"
    folder.mkdir()
    sent = random_file(folder / "sent", 30 << 20)
    with Namespace(rig) as network:
        one = Guest(rig, "one", vif=["bridge=xtest,mac=00:16:3e:00:00:01"])
        two = Guest(rig, "two", vif=["bridge=xtest", "bridge=xtest,vifname=second"])
        links = network.links()
        expected = {f"vif{one.number()}.0", f"vif{two.number()}.0", "second"}
        expect(expected <= set(links), f"links {links}, expected {expected}")
        for name in expected:
            expect("master xtest" in network.run("ip", "-o", "link", "show", name), f"{name} is not on the bridge")
        one.sh("ip address add 10.98.76.2/24 dev eth0 && ip link set eth0 up")
        two.sh("ip address add 10.98.76.3/24 dev eth0 && ip link set eth0 up")
        one.sh("ping -c 3 -i 0.2 -W 5 10.98.76.1")
        one.sh("ping -c 3 -i 0.2 -W 5 10.98.76.3")
        network.run(str(OUT / "busybox/bin/busybox"), "ping", "-c", "3", "-i", "0.2", "-W", "5", "10.98.76.2")
        serve = [*network.prefix, "python3", "-m", "http.server", "-d", str(folder), "-b", "10.98.76.1", "8000"]
        server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            one.wait_until("wget -q -O /dev/null http://10.98.76.1:8000/", "the host's server does not answer")
            one.sh("mkdir /tmp/www")
            one.start("wget -q -O /tmp/www/sent http://10.98.76.1:8000/sent")
            time.sleep(0.1)
            one.kill("xennet")
            expect(one.finish("", 60)[1] == "0", "the connection broke")
            expect(one.sh("md5sum </tmp/www/sent").split()[0] == md5(sent), "the file did not come as it was")
        finally:
            server.kill()
            server.wait()
        one.sh("httpd -h /tmp/www")
        back = rig.work / "back"
        network.run("python3", "-c", "import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])",
            "http://10.98.76.2/sent", str(back))
        expect(md5(back) == md5(sent), "the file did not come to the host as it was")
        two.sh("wget -q -O /tmp/sent http://10.98.76.2/sent && md5sum </tmp/sent >/tmp/sum", 60)
        expect(two.sh("cat /tmp/sum").split()[0] == md5(sent), "the file did not come from guest to guest as it was")
        two.off()
        rig.must("destroy", one.name)
        one.terminal.end()
        rig.gone(one.name)
        wait_for(lambda: set(network.links()) == {"lo", "xtest"}, 10, f"links are left: {network.links()}")


@test
def antispoof(rig):
    """A guest on a bridge that is held to its addresses reaches nobody under another's; DHCP's requests pass."""
    with Namespace(rig) as network:
        held = "bridge=xtest,mac=00:16:3e:00:00:01,antispoof=yes,ip=10.98.76.2 10.98.77.0/24"
        guest = Guest(rig, "held", vif=[held])
        free = Guest(rig, "free", vif=["bridge=xtest,mac=00:16:3e:00:00:02,ip=10.98.76.4"])
        ping = "ping -c 2 -i 0.2 -W 1 10.98.76.1"
        guest.sh("ip link set eth0 up && ip address add 10.98.76.2/24 dev eth0")
        guest.sh(ping)
        network.run("ip", "address", "add", "10.98.77.1/24", "dev", "xtest")
        guest.sh("ip address add 10.98.77.200/24 dev eth0 && ping -c 2 -i 0.2 -W 1 10.98.77.1")
        # Another's IP address, then another's Ethernet address: neither ARP nor packets come.
        network.run("ip", "neigh", "flush", "all")
        guest.sh("ip address flush dev eth0 && ip address add 10.98.76.3/24 dev eth0")
        guest.sh(ping, good=False)
        expect("10.98.76.3" not in network.run("ip", "neigh"), "the host knows an address that the guest may not have")
        guest.sh("ip address flush dev eth0 && ip address add 10.98.76.2/24 dev eth0")
        guest.sh("ip link set eth0 down && ip link set eth0 address 00:16:3e:00:00:77 && ip link set eth0 up")
        guest.sh(ping, good=False)
        seen = network.run("bridge", "fdb", "show", "br", "xtest") if shutil.which("bridge") else ""
        expect("00:16:3e:00:00:77" not in seen, "the bridge has learned an address that the guest may not have")
        guest.sh("ip link set eth0 down && ip link set eth0 address 00:16:3e:00:00:01 && ip link set eth0 up")
        guest.sh(ping)
        expect(re.search(r"vif 0: \d+ frames? (was|were) dropped as not the guest's to send", guest.log()), "the log says nothing")
        # A guest that is not held may do the same; the log says so.
        expect("antispoof=yes does that" in free.log(), "the log does not say that ip= alone holds nobody")
        free.sh("ip link set eth0 up && ip address add 10.98.76.3/24 dev eth0")
        free.sh(ping)
        guest.off()
        free.off()
