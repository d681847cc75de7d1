"""Checks of deploy/ and helm/: what scripts/check-deploy runs once its tools are there.

Each check is a function; all are run, some at the same time, and all faults are told. With words as arguments only
those run whose names have one of them.
"""

import os
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed

import configuration
import lints
import manifests
import observing
import played
import upgrades
from shell import Fault

# Slow checks begin first.
CHECKS = lints.CHECKS + configuration.CHECKS + played.CHECKS + observing.CHECKS + manifests.CHECKS + upgrades.CHECKS


def perform(check):
    """What is wrong, if anything, and how long it took to know."""
    began = time.monotonic()
    try:
        check()
        fault = None
    except Fault as found:
        fault = str(found)
    except Exception:
        fault = traceback.format_exc()
    return check, fault, time.monotonic() - began


def main(words):
    wanted = [check for check in CHECKS if not words or any(word in check.__name__ for word in words)]
    if not wanted:
        print(f"no check has {' or '.join(words)} in its name")
        return 2
    failed = 0
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2)) as pool:
        for done in as_completed([pool.submit(perform, check) for check in wanted]):
            check, fault, seconds = done.result()
            name = check.__name__.replace("_", " ")
            failed += fault is not None
            print(f"  {'ok    ' if fault is None else 'FAILED'}  {name} ({seconds:.1f} s)", flush=True)
            if fault is not None:
                print("\n".join(f"          {line}" for line in fault.splitlines()), flush=True)
    print(f"check-deploy: {len(wanted)} checks, {failed or 'none'} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
