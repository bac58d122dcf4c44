"""Reads the log of a web server and reports what was asked for, by whom, and when.

usage: report.py [--lines N] [--top N]

The log is made here, always the same one, so that the report's digest can be compared.
"""

import argparse
import collections
import csv
import datetime
import hashlib
import io
import random
import re
import tempfile
import textwrap

LINE = re.compile(
    r'(?P<host>[\d.]+) - (?P<user>\S+) \[(?P<time>[^\]]+)\] "(?P<verb>[A-Z]+) (?P<path>\S+) HTTP/1\.[01]" '
    r'(?P<status>\d{3}) (?P<size>\d+) "(?P<agent>[^"]*)"')
VERBS = ["GET"] * 8 + ["POST", "HEAD"]
AGENTS = ["curl/8.5", "Mozilla/5.0 (X11; Linux x86_64)", "Wget/1.21", "apt/2.6 (non-interactive)"]
Request = collections.namedtuple("Request", "host user time verb path status size agent")


def write_log(place, lines):
    chance = random.Random(7)
    time = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    for _ in range(lines):
        time += datetime.timedelta(seconds=chance.expovariate(1 / 40))
        host = ".".join(str(chance.randrange(1, 255) // 16) for _ in range(4))
        path = f"/{chance.choice(['pool', 'dists', 'docs', 'api'])}/{chance.randrange(400):03}/{chance.getrandbits(12):x}"
        status = chance.choices([200, 304, 404, 500], [80, 10, 9, 1])[0]
        place.write(f'{host} - {chance.choice(["-", "anna", "ben"])} [{time:%d/%b/%Y:%H:%M:%S %z}] '
            f'"{chance.choice(VERBS)} {path} HTTP/1.1" {status} {chance.randrange(1 << 16)} "{chance.choice(AGENTS)}"\n')


def read_log(place):
    for number, line in enumerate(place, 1):
        found = LINE.match(line)
        if found is None:
            raise SystemExit(f"line {number} is no request: {line!r}")
        fields = found.groupdict()
        fields["time"] = datetime.datetime.strptime(fields["time"], "%d/%b/%Y:%H:%M:%S %z")
        yield Request(**{**fields, "status": int(fields["status"]), "size": int(fields["size"])})


def report(requests, top):
    hosts, days, folders = collections.Counter(), collections.defaultdict(list), collections.Counter()
    for request in requests:
        hosts[request.host] += 1
        days[request.time.date()].append(request.size)
        folders[request.path.split("/")[1], request.status] += request.size
    text = io.StringIO()
    table = csv.writer(text)
    for day, sizes in sorted(days.items()):
        table.writerow([day.isoformat(), len(sizes), sum(sizes), sorted(sizes)[len(sizes) // 2]])
    for (folder, status), size in sorted(folders.items()):
        table.writerow([folder, status, size])
    busiest = ", ".join(f"{host} ({count})" for host, count in sorted(hosts.items(), key=lambda item: (-item[1], item[0]))[:top])
    return text.getvalue() + textwrap.fill(f"Most requests came from {busiest}.", 72) + "\n"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--lines", type=int, default=6000, help="length of the log")
    parser.add_argument("--top", type=int, default=5, help="how many hosts are named")
    options = parser.parse_args()
    with tempfile.TemporaryFile("w+") as log:
        write_log(log, options.lines)
        log.seek(0)
        text = report(read_log(log), options.top)
    print(text, end="")
    print(hashlib.sha256(text.encode()).hexdigest())


if __name__ == "__main__":
    main()
