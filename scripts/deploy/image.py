"""Builds the image, looks at what is in it, and lets it do its work as an operator would.

scripts/check-image calls it, in a network without anybody else. Names are resolved by a server in here, since a
static program that cannot do that works on loopback only.
"""

import argparse
import hashlib
import json
import re
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "rtm-bridge:checked"
KEY = "rtmb_only-for-the-check-of-the-image"
DRAIN = 10
CONFIG = f"""
[server]
listen = "0.0.0.0:8080"
admin_listen = "0.0.0.0:9090"
grace = "1s"
drain_timeout = "{DRAIN}s"

[store]
url = "redis://redis:6379/0"

[[bots]]
name = "sandbox"
platform = "http://platform.bridge.test:4000"
chat_bot = "Sandbox"
task_bot_id = "st-sandbox"
client_id = "cs-sandbox"
client_secret = "sandbox-secret"

[[callers]]
name = "check"
key_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
scopes = ["send", "read"]
"""
# The second is found by the search domain only, as in a cluster.
NAMES = {"platform.bridge.test", "redis.bridge.test"}
# As much as a cluster with restricted pods takes away, and limits that podman need not raise to get.
HARDENED = [
    "--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges",
    "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096",
    "--network=host", "--dns=127.0.0.1", "--dns-search=bridge.test",
    # podman would leave the probing to systemd; here it is done below.
    "--no-healthcheck",
]
FILES = {
    "etc": 0o755,
    "etc/group": 0o644,
    "etc/nsswitch.conf": 0o644,
    "etc/passwd": 0o644,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/bin/rtm-bridge": 0o755,
}
# Bytes of the program, not optimised too; more is debug information that was left in.
LARGEST = 96 * 2**20


class Fault(Exception):
    pass


def wanted(holds, text):
    if not holds:
        raise Fault(text)


def run(*command, limit=60):
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit)
    return done.returncode, done.stdout + done.stderr


def podman(*arguments):
    code, out = run(*PODMAN, *arguments)
    wanted(code == 0, f"podman {' '.join(arguments)} ended with {code}\n{out}")
    return out.strip()


def eventually(what, holds, limit=30):
    end = time.monotonic() + limit
    while not holds():
        wanted(time.monotonic() < end, f"{what} did not come within {limit} s")


def build(options):
    """Both stages, on an empty base that borrows this machine's compiler and cargo's registry."""
    base = options.state / "Base"
    (options.state / "config.toml").write_text(options.profile)
    base.write_text(
        f"FROM scratch\nENV PATH={options.sysroot}/bin:/usr/bin:/bin CARGO_HOME={options.cargo} CARGO_NET_OFFLINE=true\n"
        "COPY config.toml /.cargo/config.toml\n"
    )
    common = ["build", "--isolation=chroot", "--format=docker", "--layers=false", "--network=host"]
    podman(*common, f"--tag=docker.io/library/{options.base}", f"--file={base}", str(options.state))

    lent = ["/usr", "/bin", "/lib", "/lib64", "/etc/alternatives", options.sysroot]
    volumes = [f"--volume={path}:{path}:ro" for path in lent if Path(path).exists()]
    volumes += [f"--volume={options.cargo}:{options.cargo}", f"--volume={options.target}:/build/target"]
    command = [
        *PODMAN, *common, "--pull=never", *volumes,
        "--file=deploy/Dockerfile", "--build-arg=REVISION=checked", f"--tag={IMAGE}", ".",
    ]
    compiled = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as building:
        for line in building.stdout:
            print(line, end="", flush=True)
            if "COPY src " in line:
                compiled.clear()
            if package := re.match(r"\s*Compiling (\S+)", line):
                compiled.append(package[1])
    wanted(building.returncode == 0, "deploy/Dockerfile cannot be built")
    ours = ["rtm-sandbox", "rtm-bridge"]
    wanted(compiled == ours, f"once the sources are there {ours} should be compiled, not {compiled}")


def serve_names(asked):
    """A DNS server that knows `NAMES`, which are 127.0.0.1; whoever asks it is noted."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))

    def answer():
        while True:
            query, peer = server.recvfrom(512)
            at, labels = 12, []
            while length := query[at]:
                labels.append(query[at + 1 : at + 1 + length].decode())
                at += 1 + length
            name, kind = ".".join(labels).lower(), query[at + 1 : at + 3]
            asked.add(name)
            known = name in NAMES
            found = known and kind == b"\0\1"
            record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([127, 0, 0, 1]) if found else b""
            head = query[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, int(found), 0, 0)
            server.sendto(head + query[12 : at + 5] + record, peer)

    threading.Thread(target=answer, daemon=True).start()


def check_settings(image):
    """What orchestrators read."""
    config = image["Config"]
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    expected = {
        "User": "65532:65532",
        "Entrypoint": ["/usr/bin/rtm-bridge"],
        "Cmd": ["serve"],
        "StopSignal": "SIGTERM",
        "ExposedPorts": {"8080/tcp": {}, "9090/tcp": {}},
    }
    for name, value in expected.items():
        wanted(config.get(name) == value, f"{name} is {config.get(name)!r} instead of {value!r}")
    probe = image["Healthcheck"]["Test"]
    wanted(probe == ["CMD", "/usr/bin/rtm-bridge", "healthcheck"], f"the health check is {probe}")
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    wanted(labels.get("version") == version, f"the label says version {labels.get('version')}, Cargo.toml {version}")
    wanted(labels.get("revision") == "checked", f"the label says revision {labels.get('revision')}, which REVISION was not")
    for label in ("title", "description", "licenses"):
        wanted(labels.get(label), f"there is no label {label}")
    return probe[1:]


def check_files():
    """Only what belongs, and nothing that anybody but root may write."""
    top = Path(podman("image", "mount", IMAGE))
    found = {str(path.relative_to(top)): path.lstat() for path in top.rglob("*")}
    wanted(found.keys() == FILES.keys(), f"in the image are {sorted(found)} instead of {sorted(FILES)}")
    for name, mode in FILES.items():
        status = found[name]
        wanted(stat.S_IMODE(status.st_mode) == mode, f"/{name} has the mode {stat.S_IMODE(status.st_mode):o} instead of {mode:o}")
        wanted(status.st_uid == status.st_gid == 0, f"/{name} belongs to {status.st_uid}:{status.st_gid}")
    program = top / "usr/bin/rtm-bridge"
    headers = run("readelf", "--wide", "--program-headers", "--dynamic", str(program))[1]
    wanted("LOAD" in headers and not re.search(r"INTERP|\(NEEDED\)", headers), f"the program is not static\n{headers}")
    wanted(b"ISRG Root X1" in program.read_bytes(), "the program does not bring the certificates of public authorities")
    size = program.stat().st_size
    wanted(size <= LARGEST, f"the program has {size} bytes")
    podman("image", "unmount", IMAGE)
    return size


def say(text):
    request = urllib.request.Request(
        "http://127.0.0.1:8080/conversations/alice/messages",
        data=json.dumps({"text": text}).encode(),
        headers={"content-type": "application/json", "authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, json.load(answer)


def check_process(name):
    """That the container is as tight as it was asked to be, for otherwise the rest proves little."""
    process = Path("/proc", podman("inspect", name, "--format", "{{.State.Pid}}"))
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    wanted(status["Uid"].split() == ["65532"] * 4, f"it runs as {status['Uid']}")
    wanted(int(status["CapEff"], 16) == 0 and status["NoNewPrivs"].strip() == "1", "it kept privileges")
    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    root = next(mount for mount in mounts if mount[4] == "/")
    wanted("ro" in root[5].split(","), "its root can be written")


def check_work(probe, config):
    asked = set()
    serve_names(asked)
    podman("run", "--detach", "--name=platform", *HARDENED, IMAGE, "sandbox", "--listen", "127.0.0.1:4000")
    code, out = run(*PODMAN, "exec", "platform", *probe, "--url", "http://localhost:9090/readyz")
    wanted(code == 1 and "no connection" in out, f"where no bridge runs, healthcheck ended with {code}\n{out}")

    with_config = [*HARDENED, f"--volume={config}:/etc/rtm-bridge/bridge.toml:ro", "--env=RTM_BRIDGE_CONFIG=/etc/rtm-bridge/bridge.toml"]
    podman("run", "--name=migrate", *with_config, IMAGE, "migrate")
    podman("run", "--detach", "--name=bridge", *with_config, IMAGE)
    eventually("a healthy bridge", lambda: run(*PODMAN, "exec", "bridge", *probe)[0] == 0)
    podman("exec", "bridge", *probe, "--url", "http://localhost:9090/readyz")
    check_process("bridge")

    status, body = say("/echo it is really there")
    wanted(status == 200 and body["status"] == "answered", f"a message was answered with {status}, {body}")
    wanted([reply["text"] for reply in body["replies"]] == ["it is really there"], f"the bot said {body['replies']}")
    wanted(NAMES <= asked, f"only {sorted(asked)} were looked up")

    began = time.monotonic()
    podman("stop", f"--time={2 * DRAIN}", "bridge")
    took = time.monotonic() - began
    code = podman("inspect", "bridge", "--format", "{{.State.ExitCode}}")
    wanted(code == "0" and took < DRAIN, f"asked to stop, it ended with {code} after {took:.1f} s")
    for line in podman("logs", "bridge").splitlines():
        wanted(json.loads(line)["level"] in ("INFO", "WARN"), f"it logged {line}")
    return took


def main(options):
    build(options)
    (image,) = json.loads(podman("image", "inspect", IMAGE))
    probe = check_settings(image)
    size = check_files()
    with tempfile.TemporaryDirectory() as place:
        config = Path(place, "bridge.toml")
        config.write_text(CONFIG)
        # The reader is not root.
        Path(place).chmod(0o755)
        config.chmod(0o644)
        redis = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--save", "", "--dir", place], stdout=subprocess.DEVNULL
        )
        try:
            took = check_work(probe, config)
        finally:
            redis.kill()
            redis.wait()
    print(f"check-image: {image['Os']}/{image['Architecture']}, the program has {size / 2**20:.0f} MiB; it resolved names, ran a turn, and stopped in {took:.1f} s")


parser = argparse.ArgumentParser()
for name in ("--state", "--base", "--target", "--cargo", "--sysroot", "--profile"):
    parser.add_argument(name, required=True, type=Path if name == "--state" else str)
options = parser.parse_args()
# Images and containers of its own, away from those of the machine.
PODMAN = [
    "podman", f"--root={options.state}/root", f"--runroot={options.state}/run", f"--tmpdir={options.state}/libpod",
    "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=runc",
]
try:
    main(options)
except (Fault, OSError, subprocess.TimeoutExpired) as fault:
    print(f"check-image: {fault}", file=sys.stderr)
    for name in ("platform", "migrate", "bridge"):
        code, out = run(*PODMAN, "logs", name)
        if code == 0 and out:
            print(f"--- {name}\n{out}", file=sys.stderr)
    sys.exit(1)
