"""Checks of deploy/ and helm/: what scripts/check-deploy runs once its tools are there.

Each check is a function; all are run, and all faults are told.
"""

import copy
import json
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/rtm-bridge"
CASES = sorted(CHART.glob("ci/*-values.yaml"))
KUBERNETES = ["1.30", "1.34", "1.37"]
BRIDGE = ROOT / "target/debug/rtm-bridge"

# Rules of checkov that are not followed, and why.
NOT_FOLLOWED = {
    "CKV_K8S_11": "a CPU limit throttles turns; the request guarantees what is needed",
    "CKV_K8S_15": "images have versions or digests, so IfNotPresent is right",
    "CKV_K8S_43": "a digest is the operator's to pin (image.digest)",
    "CKV_K8S_14": "the tag is the chart's version unless one is given",
    "CKV_K8S_8": "of the pod of helm test, which runs once",
    "CKV_K8S_9": "of the pod of helm test, which runs once",
    "CKV2_K8S_6": "of the pod of helm test, which runs once",
}


class Fault(Exception):
    pass


def run(*command, stdin=None):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def must(*command, stdin=None):
    code, out, err = run(*command, stdin=stdin)
    if code:
        raise Fault(f"{' '.join(map(str, command))}\n{out}{err}")
    return out


def render(values, *more):
    return must("helm", "template", "bridge", str(CHART), "--namespace", "bridge", "--values", "-", *more, stdin=yaml.safe_dump(values))


def refused(values):
    code, _, err = run("helm", "template", "bridge", str(CHART), "--values", "-", stdin=yaml.safe_dump(values))
    return err if code else None


def case(name):
    return yaml.safe_load((CHART / f"ci/{name}-values.yaml").read_text())


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def lint_the_image():
    must("hadolint", "deploy/Dockerfile")
    must("checkov", "--file", "deploy/Dockerfile", "--framework", "dockerfile", "--quiet", "--compact", "--skip-download")


def lint_compose():
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(".") and not (ROOT / "deploy" / source).exists():
                raise Fault(f"compose.yaml: {name} mounts {source}, which is not there")
        for other in service.get("depends_on", {}):
            if other not in compose["services"]:
                raise Fault(f"compose.yaml: {name} depends on {other}, which is not there")
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                raise Fault(f"compose.yaml: {name} is open to other machines ({port})")
        if "image" in service and not re.search(r":[\w.-]+$", service["image"]):
            raise Fault(f"compose.yaml: {name} has no version ({service['image']})")
    must("checkov", "--file", "deploy/compose.yaml", "--framework", "yaml,secrets", "--quiet", "--compact", "--skip-download")
    must(str(BRIDGE), "check-config", "--config", "deploy/compose/bridge.toml")


def lint_the_chart():
    for values in CASES:
        must("helm", "lint", "--strict", str(CHART), "--values", str(values))
    must("helm", "package", str(CHART), "--destination", str(ROOT / "target/tools"))


def manifests_fit_kubernetes():
    for values in CASES:
        text = render(yaml.safe_load(values.read_text()))
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            for version in KUBERNETES:
                must("kubernetes-validate", "--strict", "--kubernetes-version", version, file.name)


def manifests_keep_the_policies():
    for name in ("sandbox", "production"):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(render(case(name)))
            file.flush()
            must(
                "checkov", "--file", file.name, "--framework", "kubernetes", "--quiet", "--compact", "--skip-download",
                "--skip-check", ",".join(NOT_FOLLOWED),
            )


def pods_keep_the_restricted_profile():
    """The Pod Security Standard `restricted`, field by field."""
    for values in CASES:
        for document in documents(render(yaml.safe_load(values.read_text()))):
            kind = document["kind"]
            pod = document["spec"] if kind == "Pod" else document.get("spec", {}).get("template", {}).get("spec")
            if kind not in ("Pod", "Deployment", "Job"):
                continue
            where = f"{values.name}: {kind} {document['metadata']['name']}"
            context = pod.get("securityContext", {})
            wanted = [
                (pod.get("automountServiceAccountToken") is False, "mounts a service account's token"),
                (context.get("runAsNonRoot") is True and context.get("runAsUser", 1) != 0, "may run as root"),
                (context.get("seccompProfile", {}).get("type") == "RuntimeDefault", "has no seccomp profile"),
                (not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), "uses the host's namespaces"),
            ]
            for volume in pod.get("volumes", []):
                kinds = set(volume) - {"name"}
                wanted.append((kinds <= {"configMap", "secret", "projected", "emptyDir", "downwardAPI"}, f"mounts {kinds}"))
            for container in pod["containers"] + pod.get("initContainers", []):
                inner = container.get("securityContext", {})
                wanted += [
                    (inner.get("allowPrivilegeEscalation") is False, "may gain privileges"),
                    (inner.get("readOnlyRootFilesystem") is True, "may write to its root file system"),
                    (inner.get("capabilities", {}).get("drop") == ["ALL"], "keeps capabilities"),
                    (not inner.get("privileged"), "is privileged"),
                    ("memory" in container["resources"].get("limits", {}), "has no memory limit"),
                    ("cpu" in container["resources"].get("requests", {}), "requests no CPU"),
                ]
            for holds, what in wanted:
                if not holds:
                    raise Fault(f"{where} {what}")


def bad_values_are_refused():
    good = case("sandbox")
    table = [
        ("a typo at the top", {"replicas": 3}, "replicas"),
        ("a typo in the configuration", {"config": {"sever": {}}}, "sever"),
        ("a typo in a section", {"config": {"server": {"drain_timout": "3s"}}}, "drain_timout"),
        ("a number where a duration belongs", {"config": {"server": {"grace": 3}}}, "grace"),
        ("a duration without a unit", {"config": {"server": {"grace": "3"}}}, "grace"),
        ("no replicas", {"replicaCount": 0}, "replicaCount"),
        ("a digest that is none", {"image": {"digest": "latest"}}, "digest"),
        ("a bot without its platform", {"bots": {"b": {"chat_bot": "B", "task_bot_id": "st", "client_id": "cs", "client_secret": {"value": "x"}}}}, "platform"),
        ("a secret in the clear", {"bots": {"b": {"platform": "https://h", "chat_bot": "B", "task_bot_id": "st", "client_id": "cs", "client_secret": "hush"}}}, "client_secret"),
        ("a secret without its key", {"bots": {"b": {"platform": "https://h", "chat_bot": "B", "task_bot_id": "st", "client_id": "cs", "client_secret": {"existingSecret": "s"}}}}, "key"),
        ("an unknown scope", {"callers": {"c": {"key_sha256": "0" * 64, "scopes": ["sned"]}}}, "scopes"),
        ("a hash that is none", {"callers": {"c": {"key_sha256": "key", "scopes": ["send"]}}}, "key_sha256"),
        ("a name that no bot may have", {"bots": {"a b": {}}}, "bots"),
        ("an unknown service", {"service": {"type": "Headless"}}, "type"),
        ("a port out of range", {"service": {"port": 70000}}, "port"),
        ("no store", {"config": {"store": {"url": ""}}}, "config.store.url is missing"),
        ("memory for two", {"config": {"store": {"url": "memory://"}}}, "memory://"),
        ("a route without a gateway", {"httpRoute": {"enabled": True}}, "parentRefs"),
        ("two monitors", {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}, "enable one"),
        ("nobody who may send", {"sandbox": {"enabled": False}, "bots": {"b": {"platform": "https://h", "chat_bot": "B", "task_bot_id": "st", "client_id": "cs", "client_secret": {"value": "x"}}}}, "callers is empty"),
        ("no bots", {"sandbox": {"enabled": False}}, "bots is empty"),
    ]
    for what, change, word in table:
        error = refused(merged(good, change))
        if error is None:
            raise Fault(f"{what} is not refused: {change}")
        if word not in error:
            raise Fault(f"{what}: the refusal does not speak of {word}: {error}")


def merged(base, change):
    result = copy.deepcopy(base)
    for key, value in change.items():
        result[key] = merged(result.get(key) or {}, value) if isinstance(value, dict) and value else value
    return result


def leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, path + (key,))
        else:
            yield path + (key,), value


def every_value_is_used():
    """Where one of `everything` is taken away, what is rendered changes."""
    everything = case("everything")
    known = {path for path, _ in leaves(yaml.safe_load((CHART / "values.yaml").read_text()))}
    told = {path for path, _ in leaves(everything)}
    for path in known:
        if not any(other[: len(path)] == path for other in told) and path not in EXCEPTIONS:
            raise Fault(f"ci/everything-values.yaml says nothing of {'.'.join(path)}")
    whole = render(everything)
    for path, _ in leaves(everything):
        # Either of a secret's two names is needed.
        if path[-1] in ("existingSecret", "existingConfigMap", "key", "value"):
            continue
        without = copy.deepcopy(everything)
        at = without
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]
        code, out, err = run("helm", "template", "bridge", str(CHART), "--namespace", "bridge", "--values", "-", stdin=yaml.safe_dump(without))
        if code == 0 and out == whole:
            raise Fault(f"{'.'.join(path)} changes nothing")


# One of the two monitors is enough, what autoscaling replaces, and what is as `everything` wants it by default.
EXCEPTIONS = {
    ("replicaCount",),
    ("image", "digest"),
    ("bots",), ("callers",),
    ("serviceAccount", "create"),
    ("podDisruptionBudget", "enabled"),
    ("migrate", "enabled"),
    ("topologySpread", "enabled"),
    ("networkPolicy", "enabled"),
    ("podSecurityContext", "runAsGroup"),
    ("metrics", "podMonitor", "enabled"), ("metrics", "podMonitor", "interval"), ("metrics", "podMonitor", "labels"),
}


def every_key_of_the_configuration_can_be_reached():
    text = (ROOT / "docs/api.md").read_text()
    sample = tomllib.loads(re.search(r"```toml\n(default_bot.*?)```", text, re.S).group(1))
    schema = json.loads((CHART / "values.schema.json").read_text())
    config = schema["properties"]["config"]["properties"]
    sections = {
        **{name: part["properties"] for name, part in config.items() if part.get("type") == "object"},
        "bots": schema["properties"]["bots"]["additionalProperties"]["properties"],
        "callers": schema["properties"]["callers"]["additionalProperties"]["properties"],
    }
    for section, table in sample.items():
        if not isinstance(table, (dict, list)):
            if section not in config:
                raise Fault(f"the schema lacks config.{section}")
            continue
        for key, value in (table[0] if isinstance(table, list) else table).items():
            # The first two are the chart's own to set.
            if key in ("name", "replica_id"):
                continue
            known = sections[section]
            if key not in known and key.removesuffix("_file") not in known:
                raise Fault(f"the schema lacks {section}.{key}")
            if isinstance(value, dict):
                for inner in value:
                    if inner not in known[key]["properties"] and inner.removesuffix("_file") not in known[key]["properties"]:
                        raise Fault(f"the schema lacks {section}.{key}.{inner}")


CERTIFICATE = ROOT / "tests/fixtures/tls.pem"
SECRET_FILES = {
    "ca_file": CERTIFICATE.read_text(),
    "client_cert_file": CERTIFICATE.read_text(),
    "client_key_file": (ROOT / "tests/fixtures/tls.key.pem").read_text(),
    "secrets": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz\n",
    "webhook_secrets": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz\n",
    "headers": "X-Tenant: one\n",
    "url": "rediss+sentinel://sentinel:26379/bridge",
}


def rendered_configurations_are_read():
    for values in CASES:
        for document in documents(render(yaml.safe_load(values.read_text()))):
            if document["kind"] != "ConfigMap" or "config.toml" not in document["data"]:
                continue
            with tempfile.TemporaryDirectory() as at:
                text = document["data"]["config.toml"].replace("/etc/rtm-bridge/secrets", at)
                for path in re.findall(rf'"{at}/([^"]+)"', text):
                    (Path(at) / path).write_text(SECRET_FILES.get(path.rsplit(".", 1)[-1], "hush"))
                config = Path(at) / "config.toml"
                config.write_text(text)
                must(str(BRIDGE), "check-config", "--config", str(config))


def grace_fits_the_drain():
    for drain, before, reserve, wanted in [("30s", 5, 10, 45), ("1m30s", 0, 10, 100), ("2500ms", 1, 1, 5)]:
        values = merged(case("sandbox"), {"config": {"server": {"drain_timeout": drain, "grace": "1s"}}})
        values |= {"preStopSleepSeconds": before, "terminationReserveSeconds": reserve}
        for document in documents(render(values)):
            if document["kind"] == "Deployment" and document["metadata"]["name"].endswith("bridge"):
                given = document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
                if given != wanted:
                    raise Fault(f"drain_timeout {drain}: {given} s before the kill instead of {wanted}")


def alerts_are_right():
    must("promtool", "check", "rules", "deploy/prometheus/alerts.yaml")
    must("promtool", "test", "rules", "deploy/prometheus/alerts_test.yaml")
    must("promtool", "check", "config", "--syntax-only", "deploy/compose/prometheus.yaml")


def alerts_have_an_entry_in_the_runbook():
    headings = {
        re.sub(r"[^a-z0-9-]", "", line.lstrip("# ").lower().replace(" ", "-"))
        for line in (ROOT / "docs/operations.md").read_text().splitlines()
        if line.startswith("#")
    }
    tested = (ROOT / "deploy/prometheus/alerts_test.yaml").read_text()
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            anchor = rule["annotations"]["runbook_url"].split("#")[1]
            if anchor != rule["alert"].lower() or anchor not in headings:
                raise Fault(f"{rule['alert']}: docs/operations.md has no heading `{rule['alert']}`")
            if f"alertname: {rule['alert']}\n" not in tested:
                raise Fault(f"{rule['alert']} has no test")


def queries_name_metrics_that_are_there():
    with tempfile.TemporaryDirectory() as at:
        log = Path(at) / "log"
        with log.open("w") as out:
            bridge = subprocess.Popen([BRIDGE, "dev", "--port", "0", "--admin-port", "0"], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        try:
            metrics = read_metrics(bridge, log)
        finally:
            bridge.terminate()
            bridge.wait()
    known = set(re.findall(r"^# TYPE (\S+)", metrics, re.M))
    texts = {name: (ROOT / name).read_text() for name in ("deploy/prometheus/alerts.yaml", "deploy/grafana/rtm-bridge.json", "helm/rtm-bridge/templates/hpa.yaml")}
    for name, text in texts.items():
        for metric in sorted(set(re.findall(r"\b((?:rtm_bridge|process)_[a-z0-9_]+)", text))):
            if metric not in known and re.sub(r"_(bucket|sum|count)$", "", metric) not in known:
                raise Fault(f"{name}: {metric} is no metric of the bridge")


def read_metrics(bridge, log):
    until = time.monotonic() + 30
    while time.monotonic() < until and bridge.poll() is None:
        for address in re.findall(r"http://(127\.0\.0\.1:\d+)", log.read_text()):
            try:
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=2) as answer:
                    return answer.read().decode()
            except OSError:
                pass
        time.sleep(0.05)
    raise Fault(f"the bridge did not start:\n{log.read_text()}")


def the_readme_names_every_value():
    readme = (CHART / "README.md").read_text()
    for path, _ in leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
        if not any(f"`{'.'.join(path[:depth])}`" in readme for depth in range(1, len(path) + 1)):
            raise Fault(f"helm/rtm-bridge/README.md does not name {'.'.join(path)}")


CHECKS = [
    lint_the_image,
    lint_compose,
    lint_the_chart,
    manifests_fit_kubernetes,
    manifests_keep_the_policies,
    pods_keep_the_restricted_profile,
    bad_values_are_refused,
    every_value_is_used,
    every_key_of_the_configuration_can_be_reached,
    rendered_configurations_are_read,
    grace_fits_the_drain,
    alerts_are_right,
    alerts_have_an_entry_in_the_runbook,
    queries_name_metrics_that_are_there,
    the_readme_names_every_value,
]


def main():
    failed = 0
    for check in CHECKS:
        began = time.monotonic()
        name = check.__name__.replace("_", " ")
        try:
            check()
            print(f"  ok      {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Fault as fault:
            failed += 1
            print(f"  FAILED  {name}\n{fault}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
