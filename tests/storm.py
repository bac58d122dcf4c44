"""Processes of all kinds are killed at random moments while domains come, work and go."""

import collections
import contextlib
import os
import random
import re
import signal
import shutil
import subprocess
import threading
import time

from kills import Life
from rig import OUT, PATIENCE, expect

KINDS = ("xend", "xendomain", "xm", "xenstored", "xenblock", "xennet", "passt", "space")
CLIENTS = 4
# What no death of somebody else excuses.
WRONG = r"panicked|within \d+ s|gave no proper answer|does not fit the request|is damaged|Permission denied"


def stage(rig):
    """The guest that is there in milliseconds."""
    shutil.copy2(OUT / "hostile/kernel", rig.base / "hostile")
    (rig.base / "hostile").chmod(0o755)


class Storm:
    def __init__(self, rig, seconds, seed):
        stage(rig)
        self.life = Life(rig, None, None)
        self.life.environment, self.life.stands_still = self.life.plain, True
        self.end = time.monotonic() + seconds
        self.dice = random.Random(seed)
        self.seeds = [self.dice.random() for _ in range(CLIENTS)]
        self.kills, self.done, self.refused = collections.Counter(), collections.Counter(), collections.Counter()
        self.problems = []

    def goes_on(self):
        return time.monotonic() < self.end and not self.problems

    def order(self, *words):
        """A command, which may be killed, or fail with a reason."""
        try:
            code, _, err = self.life.call(*words, timeout=60)
        except subprocess.TimeoutExpired:
            self.problems.append(f"xm {' '.join(words)} hangs")
            return False
        if code == 0:
            self.done[words[0]] += 1
            return True
        if code != -signal.SIGKILL:
            self.refused[words[0]] += 1
            if code not in (1, 3) or not err.strip() or re.search(WRONG, err):
                self.problems.append(f"xm {' '.join(words)} ended with {code}: {err.strip()}")
        return False

    def client(self, number):
        """A domain with a disk and a user-mode network is created, used and destroyed, again and again."""
        life, dice = self.life, random.Random(self.seeds[number])
        short = f"storm{number}"
        name, more = life.name(short), life.disk(f"more{number}")
        disks = [f"file:{life.disk(short)},xvda,w"]
        vifs = [""] if shutil.which("passt") else []
        config = life.config(short, disk=disks, vif=vifs, on_crash=dice.choice(["destroy", "restart"]), on_reboot="restart")
        uses = (
            lambda: life.says(short, r"pong\n", "ping\n", 3),
            lambda: self.order("pause", name) and self.order("unpause", name),
            lambda: self.order("block-attach", name, f"file:{more}", "xvdb", "w") and self.order("block-detach", name, "xvdb"),
            lambda: self.order("mem-set", name, "12"),
            lambda: self.order("reboot", name),
            lambda: self.order("list"),
        )
        try:
            while self.goes_on():
                self.order("create", "-q", *(["-p"] if dice.random() < 0.2 else []), config)
                for _ in range(dice.randrange(4)):
                    dice.choice(uses)()
                self.order("destroy", name)
        except Exception as error:
            self.problems.append(f"client {number}: {error!r}")

    def kill_somebody(self):
        kind = self.dice.choice(KINDS)
        victims = sorted(pid for pid, comm in self.life.processes((kind, "passt.avx2")).items() if comm.startswith(kind))
        if victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.dice.choice(victims), signal.SIGKILL)
                self.kills[kind] += 1

    def run(self):
        clients = [threading.Thread(target=self.client, args=(number,)) for number in range(CLIENTS)]
        for thread in clients:
            thread.start()
        while self.goes_on():
            time.sleep(self.dice.uniform(0.01, 0.2))
            self.kill_somebody()
        for thread in clients:
            thread.join()
        expect(not self.problems, "\n".join(self.problems))
        # One that is being restarted may come up yet.
        time.sleep(0.5 * PATIENCE)
        self.life.check()

    def summary(self):
        kills = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        told = ", ".join(f"{word} {count} (refused {self.refused[word]})" for word, count in sorted(self.done.items()))
        return f"{sum(self.kills.values())} kills ({kills}); {told}"


def storm(rig, seconds, seed):
    """Runs it; what it came to in words."""
    weather = Storm(rig, seconds, seed)
    try:
        weather.run()
        return weather.summary()
    finally:
        weather.life.close()
