"""What runs the tests of lab.TESTS: the command line, verdicts, and what each one must not leave behind."""

import argparse
import os
import sys
import time
import traceback

from lab import TESTS, Skip, nothing_is_left, records
from rig import Failure, Rig, verdict


def logs(rig):
    """What the guest tells and the ends of the domain processes' logs, for whoever reads a failure."""
    if rig.witness:
        try:
            print(rig.witness(), flush=True)
        except Exception as error:
            print(f"     the guest tells nothing: {error}", flush=True)
    for log in sorted((rig.work / "log").glob("*.log"), key=os.path.getmtime)[-2:]:
        for line in log.read_text(errors="replace").splitlines()[-15:]:
            print(f"     {log.name}: {line}", flush=True)


def begin_anew(rig):
    """What a failed test left is not counted against the next one."""
    rig.destroy_all()
    for record in records(rig):
        (rig.work / "run" / record).unlink(missing_ok=True)


def run_all(rig, tests):
    """Runs tests: how many passed, those that failed with their reasons, how many were skipped."""
    passed, failed, skipped = 0, {}, 0
    for name, body in tests:
        start = time.monotonic()
        rig.witness = None
        try:
            body(rig)
            nothing_is_left(rig)
            passed += 1
            print(f"ok   {name} ({time.monotonic() - start:.1f} s)", flush=True)
        except Skip as reason:
            skipped += 1
            rig.destroy_all()
            print(f"skip {name}: {reason}", flush=True)
        except Exception as error:
            failed[name] = error
            print(f"FAIL {name} ({time.monotonic() - start:.1f} s): {error}", flush=True)
            if not isinstance(error, Failure):
                traceback.print_exc(file=sys.stdout)
            logs(rig)
            begin_anew(rig)
    return passed, failed, skipped


def main(usage, *needed):
    """The exit status of a test program; `needed` are images in out/ without which it does not begin."""
    program = os.path.basename(sys.argv[0])
    parser = argparse.ArgumentParser(usage=usage)
    parser.add_argument("-l", "--list", action="store_true")
    parser.add_argument("--bin", help="folder of xm, xendomain, xenblock and the others")
    parser.add_argument("--rig", help=argparse.SUPPRESS)
    parser.add_argument("pattern", nargs="*")
    options = parser.parse_args()
    chosen = [(name, body) for name, body in TESTS
        if not options.pattern or any(pattern in name for pattern in options.pattern)]
    if options.list:
        print("\n".join(name for name, _ in chosen))
        return 0
    try:
        rig = Rig(options.rig, options.bin)
        missing = [name for name in needed if not (rig.base / name).exists()]
        if missing:
            raise Failure(f"there is no out/{missing[0]}")
    except (OSError, Failure) as error:
        print(f"{program}: cannot set up: {error} (make setup, cargo build --release)", file=sys.stderr)
        return 1
    try:
        passed, failed, skipped = run_all(rig, chosen)
    finally:
        rig.close()
    return verdict(passed, failed, skipped)
