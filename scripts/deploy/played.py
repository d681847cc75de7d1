"""A bridge that runs with what the chart renders: what `helm test` and NOTES.txt tell people to run is run on it."""

import contextlib
import functools
import json
import os
import re
import shlex
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import chart
from shell import BRIDGE, Fault, run

PATIENCE = 30
# Parts of a configuration that have metrics of their own.
MEASURED = """
[[bots.webhooks]]
name = "measured"
url = "http://127.0.0.1:9/in"
secrets = ["whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"]

[[callers]]
name = "measured"
key_sha256 = "0000000000000000000000000000000000000000000000000000000000000001"
scopes = ["read"]
rate_per_minute = 60
rate_scope = "fleet"
jwt = { issuer = "https://issuer.example", audience = "rtm-bridge", jwks_url = "http://127.0.0.1:9/keys" }
"""
_once = threading.Lock()


@contextlib.contextmanager
def process(arguments, environment, log, listening):
    """Runs the bridge's program until the end; gives what `listening` finds in its log."""
    with log.open("w") as out:
        child = subprocess.Popen([BRIDGE, *arguments], env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        until = time.monotonic() + PATIENCE
        while not (found := re.search(listening, log.read_text())):
            if child.poll() is not None or time.monotonic() > until:
                raise Fault(f"{' '.join(arguments)} does not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield found.groups()
    finally:
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise Fault(f"{' '.join(arguments)} does not end:\n{log.read_text()}") from None


@contextlib.contextmanager
def bridge():
    """The bridge of the sandbox's values, with the memory store and on free ports; gives both addresses."""
    manifests = chart.documents(chart.case("sandbox"))
    [name] = [volume["configMap"]["name"] for volume in chart.bridge(manifests)["spec"]["template"]["spec"]["volumes"] if volume["name"] == "config"]
    text = next(one for one in chart.of_kind(manifests, "ConfigMap") if one["metadata"]["name"] == name)["data"]["config.toml"]
    with tempfile.TemporaryDirectory() as at, contextlib.ExitStack() as running:
        at = Path(at)
        for key, value in chart.the(manifests, "Secret", "-migrate")["stringData"].items():
            (at / key).write_text(value)
        (at / "config.toml").write_text(text.replace("/etc/rtm-bridge/secrets", str(at)) + MEASURED)
        sandbox = process(["sandbox", "--listen", "127.0.0.1:0"], {}, at / "sandbox.log", r"(http://127\.0\.0\.1:\d+)")
        [platform] = running.enter_context(sandbox)
        here = {
            "RTM_BRIDGE_CONFIG": str(at / "config.toml"),
            "RTM_BRIDGE__STORE__URL": "memory://",
            "RTM_BRIDGE__SERVER__LISTEN": "127.0.0.1:0",
            "RTM_BRIDGE__SERVER__ADMIN_LISTEN": "127.0.0.1:0",
            "RTM_BRIDGE__SERVER__GRACE": "0s",
            "RTM_BRIDGE__BOTS__SANDBOX__PLATFORM": platform,
        }
        ready = r'"the bridge is ready","api":"([^"]+)","admin":"([^"]+)"'
        yield running.enter_context(process(["serve"], here, at / "bridge.log", ready))


@functools.cache
def _played():
    given = chart.case("sandbox")
    pod = chart.the(chart.documents(given), "Pod", "-test")["spec"]["containers"][0]
    last = chart.notes(given).splitlines()[-1].strip()
    with bridge() as (api, admin):
        arguments = [re.sub(r"http://[^/]+", f"http://{api}", argument) for argument in pod["args"]]
        environment = {variable["name"]: variable["value"] for variable in pod["env"]}
        test = run(BRIDGE, *arguments, env={**os.environ, **environment})
        command = shlex.split(last.replace("127.0.0.1:8080", api))
        said = run(*command)
        with urllib.request.urlopen(f"http://{admin}/metrics", timeout=PATIENCE) as answer:
            return test, (last, said), answer.read().decode()


def played():
    """What came of `helm test`, of the last line of NOTES.txt, and the metrics afterwards."""
    with _once:
        return _played()


def helm_test_runs_a_turn():
    (code, out, err), _, metrics = played()
    if code or not out.strip():
        raise Fault(f"the pod of helm test ends with {code}:\n{out}{err}")
    turns = re.findall(r'^rtm_bridge_turns_total\{bot="sandbox",outcome="\w+"\} ([0-9]+)$', metrics, re.M)
    if sum(map(int, turns)) < 2:
        raise Fault(f"helm test and NOTES.txt made {turns} turns")


def the_notes_end_with_a_working_command():
    _, (last, (code, out, err)), _ = played()
    try:
        answered = code == 0 and json.loads(out).get("status") == "answered"
    except json.JSONDecodeError:
        answered = False
    if not answered:
        raise Fault(f"{last}\nends with {code}:\n{out}{err}")


CHECKS = [helm_test_runs_a_turn, the_notes_end_with_a_working_command]
