"""What stands still, told by what failed: a domain that hangs once in a thousand boots leaves nothing else."""

import pathlib
import re
import time

# Last lines of a domain's log that are told.
LINES = 60


def ticks(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return fields[0], int(fields[11]) + int(fields[12])


def threads(pid, before):
    """A line of each thread of a process: its state, its time, and where it waits in the host's kernel."""
    found = []
    for task in sorted(pathlib.Path(f"/proc/{pid}/task").iterdir()):
        try:
            state, now = ticks(task.name)
            stack = [re.sub(r"\[<0>\] |\+.*", "", line) for line in (task / "stack").read_text().splitlines()[:4]]
            call = (task / "syscall").read_text().strip()
            comm = (task / "comm").read_text().strip()
        except OSError:
            continue
        found.append(f"{pid}/{task.name} {comm} {state} ticks {now} (+{now - before.get(pid, now)}) "
            f"{','.join(stack)} call {call}")
    return found


def of(rig):
    """All that can be told of the domains of a test from outside and by themselves."""
    told = ["", "--- what stands still ---"]
    try:
        family = sorted({pid for name in rig.names() for pid in rig.family(name)})
        before = {pid: ticks(pid)[1] for pid in family}
        time.sleep(0.5)
        for name in rig.names():
            told.append(rig.run("stats", "--json", name, timeout=10)[1])
            rig.run("debug-keys", "qrs", name, timeout=10)
            # The guest's own view comes on its console: tasks that are blocked, and where.
            rig.run("sysrq", name, "w", timeout=10)
            # A counter is told by the space, when it gets to it.
            time.sleep(0.5)
            log = (rig.work / f"log/{name}.log").read_text().splitlines()
            # What the program prints over many lines is one.
            text = re.sub(r'"?\n\S+ \S+ program=space \S+ \S+ msg="?( |\})', " ", "\n".join(log[-LINES:]))
            told += [f"{name}: {line}" for line in text.splitlines()]
        told += pathlib.Path("/proc/loadavg").read_text().splitlines()
        for pid in family:
            told += threads(pid, before)
    except Exception as error:  # it must not hide what failed
        told.append(f"and telling it failed: {error!r}")
    return "\n".join(told)
