"""Domains that come and go: nothing may be left of them, and nothing may grow."""

import pathlib
import re
import time

from rig import Failure

# Domains of which the daemon remembers how they ended; until then it may grow.
REMEMBERED = 1000
# What a process may grow by between the first measure and the last, in KiB: its allocator's doing.
GROWTH = 1024


def size(pid):
    """A process's memory in KiB, its descriptors and its threads."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    memory, threads = (int(re.search(rf"(?m)^{key}:\s+(\d+)", status)[1]) for key in ("VmRSS", "Threads"))
    return memory, len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir())), threads


def store_of(rig):
    """The process of the rig's xenstored."""
    ours = f"XENOLITH_RUNTIME_DIR={rig.work / 'run'}".encode()
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text() == "xenstored\n" and ours in (entry / "environ").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    raise Failure("xenstored is gone")


def sizes(rig):
    """What the two have when nothing is under way: the least of several looks."""
    found = {}
    for _ in range(8):
        time.sleep(0.25)
        for name, pid in (("xend", rig.daemon()), ("xenstored", store_of(rig))):
            now = size(pid)
            found[name] = tuple(map(min, found.get(name, now), now))
    return found


def files(rig):
    """Files of the run-time directory, and what the logs hold in bytes (they begin anew when they are long)."""
    logs = [path for path in (rig.work / "log").rglob("*") if path.is_file()]
    return len([path for path in (rig.work / "run").rglob("*") if path.is_file()]), sum(path.stat().st_size for path in logs)


def run(rig, count):
    """`count` small domains are created and destroyed; every second one gets as far as its kernel does."""
    passed, failed = 0, 0
    # Keeps the store and the daemon.
    rig.must("create", "-q", "-p", rig.config("stays", memory=80))
    path = rig.config("comes", memory=80)
    warm = max(count // 10, min(REMEMBERED + 200, count // 2))
    first, start = None, time.monotonic()
    for cycle in range(count):
        try:
            rig.must("create", "-q", *(["-p"] if cycle % 2 else []), path)
            rig.must("destroy", "comes")
            passed += 1
        except Failure as error:
            failed += 1
            print(f"FAIL cycle {cycle}: {error}", flush=True)
            rig.run("destroy", "comes")
        if cycle + 1 == warm:
            first = sizes(rig), files(rig)
        if (cycle + 1) % 1000 == 0:
            print(f"{cycle + 1} cycles in {time.monotonic() - start:.0f} s: {sizes(rig)}, files {files(rig)}", flush=True)
    last = sizes(rig), files(rig)
    for name, (memory, descriptors, threads) in last[0].items():
        before = first[0][name]
        if memory > before[0] + GROWTH or (descriptors, threads) != before[1:]:
            failed += 1
            print(f"FAIL {name} had {before} (KiB, descriptors, threads) after {warm} cycles, and has {last[0][name]}", flush=True)
    if last[1][0] != first[1][0]:
        failed += 1
        print(f"FAIL there were {first[1][0]} files after {warm} cycles, and there are {last[1][0]}", flush=True)
    rig.must("destroy", "stays")
    print(f"{passed} of {count} cycles in {time.monotonic() - start:.0f} s; after {warm}: {first}, at the end: {last}", flush=True)
    return passed, failed
