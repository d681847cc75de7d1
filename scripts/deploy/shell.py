"""How the checks run programs, and how they say that something is wrong."""

import contextlib
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BRIDGE = ROOT / "target/debug/rtm-bridge"

# Seconds that a program may take; the slowest takes a tenth of it.
PATIENCE = 300


class Fault(Exception):
    """What is wrong, in words for whoever has to mend it."""


def run(*command, stdin=None, **more):
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, **more)
    except FileNotFoundError:
        raise Fault(f"{command[0]} is not here; scripts/check-deploy installs what is missing") from None
    except subprocess.TimeoutExpired:
        raise Fault(f"{' '.join(command)} does not end within {PATIENCE} s") from None
    return done.returncode, done.stdout, done.stderr


def must(*command, stdin=None, **more):
    code, out, err = run(*command, stdin=stdin, **more)
    if code:
        raise Fault(f"{' '.join(map(str, command))}\n{out}{err}")
    return out


@contextlib.contextmanager
def scratch(**files):
    """A directory with these files; `_yaml` at the end of a name stands for `.yaml`."""
    with tempfile.TemporaryDirectory() as at:
        for name, text in files.items():
            (Path(at) / name.replace("_yaml", ".yaml")).write_text(text)
        yield Path(at)
