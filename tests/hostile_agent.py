"""An agent that nobody can trust, for tests/exec: answers requests with what no honest one says."""

import os
import struct
import sys
import time

HELLO, READY, STARTED, OPEN, DATA, DONE, REFUSED = 1, 2, 3, 4, 5, 12, 13
FILE, DIRECTORY, LINK, END = b"f", b"d", b"l", b"e"


def stuffed(plain):
    out, block = bytearray(), bytearray()
    for byte in plain:
        if byte == 0:
            out += bytes([len(block) + 1]) + block
            block = bytearray()
            continue
        block.append(byte)
        if len(block) == 254:
            out += bytes([255]) + block
            block = bytearray()
    return bytes(out + bytes([len(block) + 1]) + block + b"\0")


def plain(stuffed):
    out = bytearray()
    while stuffed:
        length = stuffed[0] - 1
        out += stuffed[1:1 + length]
        stuffed = stuffed[1 + length:]
        if length < 254 and stuffed:
            out.append(0)
    return bytes(out)


def head(kind, name=None):
    entry = kind + struct.pack("<IqQ", 0o755, 0, 3)
    return entry if name is None else entry + struct.pack("<H", len(name)) + name


def file(name):
    return head(FILE, name) + struct.pack("<I", 3) + b"bad" + struct.pack("<I", 0)


def link(name, to):
    return LINK + struct.pack("<H", len(name)) + name + struct.pack("<H", len(to)) + to


def tree(*entries):
    return head(DIRECTORY) + b"".join(entries) + END


TREES = {
    "dotdot": tree(file(b"..")),
    "slash": tree(file(b"../../xenolith-hostile")),
    "absolute": tree(file(b"/tmp/xenolith-hostile")),
    "through-link": tree(link(b"way", b"/tmp"), head(DIRECTORY, b"way"), file(b"xenolith-hostile"), END),
    "zero": tree(file(b"a\0b")),
    "empty": tree(file(b"")),
    "twice": tree(link(b"x", b"/tmp/xenolith-hostile"), file(b"x")),
    "link-root": link(b"x", b"/tmp"),
    "nested-dotdot": tree(head(DIRECTORY, b".."), file(b"xenolith-hostile"), END),
    "deep": head(DIRECTORY) + head(DIRECTORY, b"d") * 300,
    "endless-name": head(DIRECTORY) + head(FILE)[:21] + struct.pack("<H", 65535) + b"n" * 65535,
    "piece": tree(head(FILE, b"large") + struct.pack("<I", 0xFFFFFFFF)),
    "kind": tree(b"?"),
}


def opened(path):
    """The channel's terminal, once a tool has asked for a channel."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_NOCTTY)
        except OSError:
            time.sleep(0.1)


class Agent:
    def __init__(self, path):
        self.terminal = opened(path)
        # A small Python has no module for it.
        os.system(f"stty -F {path} raw -echo")
        self.write(b"\0")
        self.say(0, STARTED, b"")

    def write(self, data):
        while data:
            data = data[os.write(self.terminal, data):]

    def say(self, session, kind, payload):
        self.write(stuffed(struct.pack("<HHB", len(payload), session, kind) + payload))

    def run(self):
        waiting = b""
        while True:
            waiting += os.read(self.terminal, 4096)
            *frames, waiting = waiting.split(b"\0")
            for frame in frames:
                found = plain(frame)
                if len(found) >= 5:
                    self.take(*struct.unpack("<HHB", found[:5]), found[5:])

    def take(self, _length, session, kind, payload):
        if kind == HELLO:
            self.say(0, READY, bytes([2]) + payload[1:])
        if kind != OPEN:
            return
        for name, answer in TREES.items():
            if payload.endswith(b"/" + name.encode()):
                for start in range(0, len(answer), 4096):
                    self.say(session, DATA, answer[start:start + 4096])
        if b"flood" in payload:
            # Far more than was allowed.
            for _ in range(500):
                self.say(session, DATA, b"x" * 4096)
            self.say(session, DONE, b"\0\0")
        if b"unknown" in payload:
            self.say(session, 99, b"")
            self.say(session, READY, b"")
            self.say(0, 77, b"x")
            self.say(session, DONE, b"what?")
        if b"torn" in payload:
            self.write(b"\x05torn")
            self.write(b"\0" * 3 + bytes(range(1, 256)) * 300 + b"\0")
            self.say(session, DONE, b"\0\0")
        if b"escapes" in payload:
            self.say(session, REFUSED, b"\x7d\x1b]0;title\x07 \x1b[2J")


Agent(sys.argv[1] if sys.argv[1:] else "/dev/hvc1").run()
