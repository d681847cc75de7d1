"""The values: what is refused, what is used, and that the bridge takes what becomes of them."""

import copy
import re
import shlex
import tempfile
from pathlib import Path

import yaml

import chart
from shell import BRIDGE, ROOT, Fault, must, run

# The contents of files that the bridge parses. Other files hold any word.
CERTIFICATE = ROOT / "tests/fixtures/tls.pem"
FILES = {
    "ca_file": CERTIFICATE.read_text(),
    "cert_file": CERTIFICATE.read_text(),
    "key_file": (ROOT / "tests/fixtures/tls.key.pem").read_text(),
    "client_ca_file": CERTIFICATE.read_text(),
    "client_cert_file": CERTIFICATE.read_text(),
    "client_key_file": (ROOT / "tests/fixtures/tls.key.pem").read_text(),
    "secrets": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz\n",
    "callback_secrets": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz\n",
    "webhook_secrets": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz\n",
    "headers": "X-Tenant: one\n",
    "public_key": (ROOT / "tests/fixtures/rsa.public.pem").read_text(),
    "url": "rediss+sentinel://sentinel:26379/bridge",
}
# Values that ci/everything-values.yaml cannot say: it wants what they are anyway, or another excludes them.
UNSAID = {
    ("replicaCount",),
    ("image", "digest"),
    ("rollingUpdate", "maxUnavailable"),
    ("serviceAccount", "create"),
    ("podDisruptionBudget", "enabled"),
    ("migrate", "mode"),
    ("autoscaling", "external"),
    ("networkPolicy", "enabled"),
    ("metrics", "podMonitor", "enabled"),
    ("metrics", "podMonitor", "interval"),
    ("metrics", "podMonitor", "labels"),
}
# The keys that the chart sets itself.
OWN = {
    "bots.NAME.name",
    "bots.NAME.webhooks.NAME.name",
    "bots.NAME.kore_webhook.clients.NAME.id",
    "callers.NAME.name",
    "cluster.replica_id",
}


def bad_values_are_refused():
    bot = {"platform": "https://h", "chat_bot": "B", "task_bot_id": "st", "client_id": "cs", "client_secret": {"value": "x"}}
    only = {"sandbox": {"enabled": False}, "bots": {"b": bot}}
    table = [
        ("a typo at the top", {"replicas": 3}, "replicas"),
        ("a typo in the configuration", {"config": {"sever": {}}}, "sever"),
        ("a typo in a section", {"config": {"server": {"drain_timout": "3s"}}}, "drain_timout"),
        ("a typo in a webhook", {"bots": {"b": {**bot, "webhooks": {"e": {"secrets": {"value": "x"}, "urls": "https://h"}}}}}, "urls"),
        ("a number where a duration belongs", {"config": {"server": {"grace": 3}}}, "grace"),
        ("a duration without a unit", {"config": {"server": {"grace": "3"}}}, "grace"),
        ("a size without a unit", {"config": {"store": {"memory_limit": "64"}}}, "memory_limit"),
        ("no replicas", {"replicaCount": 0}, "replicaCount"),
        ("a digest that is none", {"image": {"digest": "latest"}}, "digest"),
        ("a bot without its platform", {"bots": {"b": {key: bot[key] for key in bot if key != "platform"}}}, "platform"),
        ("a secret in the clear", {"bots": {"b": {**bot, "client_secret": "hush"}}}, "client_secret"),
        ("a secret without its key", {"bots": {"b": {**bot, "client_secret": {"existingSecret": "s"}}}}, "key"),
        ("a webhook without secrets", {"bots": {"b": {**bot, "webhooks": {"e": {"url": "https://h"}}}}}, "secrets"),
        ("an unknown form", {"bots": {"b": {**bot, "webhooks": {"e": {"secrets": {"value": "x"}, "form": "kore"}}}}}, "form"),
        ("an unknown scope", {"callers": {"c": {"key_sha256": "0" * 64, "scopes": ["sned"]}}}, "scopes"),
        ("a hash that is none", {"callers": {"c": {"key_sha256": "key", "scopes": ["send"]}}}, "key_sha256"),
        ("a name that no bot may have", {"bots": {"a b": {}}}, "bots"),
        ("an unknown service", {"service": {"type": "Headless"}}, "type"),
        ("a port out of range", {"service": {"port": 70000}}, "port"),
        ("a selector in place of a list", {"networkPolicy": {"ingressFrom": {"podSelector": {}}}}, "ingressFrom"),
        ("no store", {"config": {"store": {"url": ""}}}, "config.store.url is missing"),
        ("memory for two", {"config": {"store": {"url": "memory://"}}}, "memory://"),
        ("no port of a Redis whose URL is secret", {"config": {"store": {"url": {"existingSecret": "s", "key": "k"}}}, "networkPolicy": {"egress": {"redis": {"ports": []}}}}, "networkPolicy.egress.redis.ports is empty"),
        ("an address that nobody reaches", {"config": {"server": {"listen": "127.0.0.1:8080"}}}, "config.server.listen"),
        ("two servers on one port", {"config": {"server": {"listen": "0.0.0.0:8080", "admin_listen": "[::]:8080"}}}, "have one port"),
        ("an ingress for no host", {"ingress": {"enabled": True, "hosts": []}}, "ingress.hosts is empty"),
        ("a bot under the sandbox's name", {"bots": {"sandbox": bot}}, "bots.sandbox"),
        ("a caller under the test's name", {"callers": {"helm-test": {"key_sha256": "0" * 64, "scopes": ["send"]}}}, "callers.helm-test"),
        ("a route without a gateway", {"httpRoute": {"enabled": True}}, "parentRefs"),
        ("a name in capitals", {"fullnameOverride": "MyBridge"}, "fullnameOverride"),
        ("a name with dots", {"fullnameOverride": "my.bridge"}, "fullnameOverride"),
        ("a name that no Service may have", {"fullnameOverride": "9bridge"}, "fullnameOverride"),
        ("a name without room for what is added", {"fullnameOverride": "b" * 53}, "fullnameOverride"),
        ("a name that ends with a dash", {"nameOverride": "bridge-"}, "nameOverride"),
        ("a label of the chart", {"commonLabels": {"app.kubernetes.io/name": "other"}}, "commonLabels"),
        ("a label of the selector", {"podLabels": {"app.kubernetes.io/component": "other"}}, "podLabels"),
        ("a way to migrate that is none", {"migrate": {"mode": "job"}}, "mode"),
        ("source ranges inside", {"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}}, "loadBalancerSourceRanges"),
        ("a source range without a length", {"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]}}, "loadBalancerSourceRanges"),
        ("a family that is none", {"service": {"ipFamilies": ["ipv6"]}}, "ipFamilies"),
        ("a field that no Service has", {"service": {"type": "LoadBalancer", "sourceRanges": []}}, "sourceRanges"),
        ("domains that nothing forces", {"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "minDomains": 3, "whenUnsatisfiable": "ScheduleAnyway"}]}, "whenUnsatisfiable"),
        ("a selector of the operator's own", {"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}]}, "labelSelector"),
        ("no port for DNS", {"networkPolicy": {"egress": {"dnsPorts": []}}}, "dnsPorts"),
        ("a file beside no path", {"bots": {"b": {**bot, "client_secret_file": {"existingSecret": "s", "key": "k"}}}}, "client_secret_file"),
        ("a quantity with a typo", {"resources": {"limits": {"memory": "1gb"}}}, "memory"),
        ("requests that fill the pod", {"config": {"server": {"memory_limit": "600MiB"}}}, "config.server.memory_limit is 600 MiB"),
        ("an alert that there is not", {"metrics": {"prometheusRule": {"enabled": True, "alerts": {"RtmBridgeTurnFails": {"for": "5m"}}}}}, "there is no alert RtmBridgeTurnFails"),
        ("a threshold of an alert without one", {"metrics": {"prometheusRule": {"enabled": True, "alerts": {"RtmBridgeGone": {"threshold": 1}}}}}, "RtmBridgeGone"),
        ("users of an alert that counts none", {"metrics": {"prometheusRule": {"enabled": True, "alerts": {"RtmBridgeTurnsFail": {"users": 3}}}}}, "RtmBridgeTurnsFail.users"),
        ("two autoscalers", {"autoscaling": {"enabled": True, "external": True}}, "autoscaling.external"),
        ("a rule about a drain that is none", {"podDisruptionBudget": {"unhealthyPodEvictionPolicy": "Never"}}, "unhealthyPodEvictionPolicy"),
        ("a token that no monitor can send", {"config": {"server": {"metrics_token_file": "/mnt/token"}}, "metrics": {"podMonitor": {"enabled": True}}}, "metrics_token_file"),
        ("two monitors", {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}, "enable one"),
        ("nothing to scale by", {"autoscaling": {"enabled": True, "targetCPU": 0}}, "nothing to scale by"),
        ("fewer at most than at least", {"autoscaling": {"enabled": True, "maxReplicas": 1}}, "minReplicas"),
        ("an update that cannot begin", {"rollingUpdate": {"maxSurge": 0}}, "maxSurge"),
        ("nobody who may send", only, "callers is empty"),
        ("no bots", {"sandbox": {"enabled": False}}, "bots is empty"),
    ]
    for what, change, word in table:
        error = chart.refusal(chart.merged(chart.case("sandbox"), change))
        if error is None:
            raise Fault(f"{what} is not refused: {change}")
        if word not in error:
            raise Fault(f"{what}: the refusal does not speak of {word}: {error}")


def leaves(tree, node, path=()):
    """The values that have no more of the chart's own keys in them."""
    for key, value in tree.items():
        inner = node.get("properties", {}).get(key) or node.get("additionalProperties") or {}
        if isinstance(value, dict) and value and ("properties" in inner or isinstance(inner.get("additionalProperties"), dict) and "properties" in inner["additionalProperties"]):
            yield from leaves(value, inner, path + (key,))
        else:
            yield path + (key,)


def every_value_is_used():
    """`everything` says something of each value, and where one is taken away, what is rendered changes."""
    everything = chart.case("everything")
    known = set(leaves(chart.values(), chart.schema()))
    told = set(leaves(everything, chart.schema()))
    unsaid = {path for path in known if not any(other[: len(path)] == path for other in told)}
    for path in unsaid ^ UNSAID:
        raise Fault(f"{'.'.join(path)} is {'not said in' if path in unsaid else 'listed as unsaid, but said in'} ci/everything-values.yaml")
    whole = chart.render(everything)
    for path in sorted(told):
        without = copy.deepcopy(everything)
        at = without
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]
        code, out, _ = chart.template(without)
        if code == 0 and out == whole:
            raise Fault(f"{'.'.join(path)} changes nothing")
    for path in sorted(UNSAID):
        changes_something(path)


def changes_something(path):
    """The same for what `everything` does not say."""
    other = {
        ("replicaCount",): 7,
        ("rollingUpdate", "maxUnavailable"): 1,
        ("migrate", "mode"): "initContainer",
        ("image", "digest"): "sha256:" + "0" * 64,
        ("metrics", "podMonitor", "interval"): "7s",
        ("metrics", "podMonitor", "labels"): {"y": "z"},
    }.get(path)
    change = {"metrics": {"podMonitor": {"enabled": path[-1] != "enabled"}}}
    base = chart.merged(chart.case("sandbox"), change)
    default = chart.values()
    for key in path:
        default = default[key]
    change = not default if other is None else other
    for key in reversed(path):
        change = {key: change}
    if chart.render(base) == chart.render(chart.merged(base, change)):
        raise Fault(f"{'.'.join(path)} changes nothing")


def keys():
    return must(BRIDGE, "check-config", "--keys").split()


def places(node, path=""):
    """Every key of the configuration that the schema knows."""
    for key, inner in node["properties"].items():
        if inner.get("properties"):
            yield from places(inner, f"{path}{key}.")
        elif isinstance(inner.get("additionalProperties"), dict) and "properties" in inner["additionalProperties"]:
            yield from places(inner["additionalProperties"], f"{path}{key}.NAME.")
        else:
            yield f"{path}{key}"


def every_key_of_the_configuration_can_be_reached():
    known = set(keys())
    root = chart.schema()["properties"]
    reached = set(places(root["config"]))
    for table in ("bots", "callers"):
        reached |= set(places(root[table]["additionalProperties"], f"{table}.NAME."))
    for key in sorted(known - OWN):
        if key not in reached:
            raise Fault(f"values.schema.json lacks {key}")
    for key in sorted(reached):
        if key not in known:
            raise Fault(f"values.schema.json has {key}, which the bridge does not know")


def every_key_of_the_configuration_is_described():
    text = (ROOT / "docs/operations.md").read_text()
    sections = re.split(r"^### ", text, flags=re.M)
    for key in keys():
        *table, last = key.split(".")
        heading = {"bots": "`[[bots]]`", "callers": "`[[callers]]`", "bots.NAME.webhooks": "`[[bots.webhooks]]`", "": "Top level"}
        heading["callers.NAME.jwt"] = "`[callers.jwt]`"
        heading |= dict.fromkeys(("bots.NAME.kore_webhook", "bots.NAME.kore_webhook.clients"), "`[bots.kore_webhook]`")
        table = ".".join(table).removesuffix(".NAME")
        title = heading.get(table, f"`[{table}]`")
        section = next((section for section in sections if section.startswith(title)), "")
        if f"`{last}`" not in section and f"`{table}.{last}`" not in section:
            raise Fault(f"docs/operations.md says nothing of {last} under {title}")


def rendered_configurations_are_read():
    """As the pods find it: the file, and beside it the secrets that the volumes project."""
    for name, manifests in chart.every_case():
        pod = chart.bridge(manifests)["spec"]["template"]["spec"]
        [mounted] = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
        own = {key: value for one in chart.of_kind(manifests, "Secret") for key, value in one["stringData"].items()}
        [sources] = [volume["projected"]["sources"] for volume in pod["volumes"] if volume["name"] == "secrets"]
        with tempfile.TemporaryDirectory() as at:
            for source in sources:
                inner = source.get("secret") or source["configMap"]
                for item in inner.get("items", [{"path": key} for key in own]):
                    path = item["path"]
                    (Path(at) / path).write_text(own.get(path) or FILES.get(path.rsplit(".", 1)[-1], "hush"))
            text = next(one for one in chart.of_kind(manifests, "ConfigMap") if one["metadata"]["name"] == mounted)["data"]["config.toml"]
            config = Path(at) / "config.toml"
            # What another volume brings is there too.
            for path in re.findall(r'_file = "(/(?:mnt|vault)/[^"]+)"', text):
                brought = Path(at) / path.replace("/", "_")
                brought.write_text(FILES.get(path.rsplit("/", 1)[-1], "hush"))
                text = text.replace(path, str(brought))
            config.write_text(text.replace("/etc/rtm-bridge/secrets", at))
            out = must(BRIDGE, "check-config", "--config", config)
            # In a mesh the proxies encrypt.
            expected = "sandbox" if name != "istio" else "unencrypted"
            warnings = [line for line in out.splitlines() if line.startswith("warning") and expected not in line and name != "everything"]
            if warnings:
                raise Fault(f"{name}: {warnings}")


def the_readme_names_every_value():
    readme = (chart.CHART / "README.md").read_text()
    for path in leaves(chart.values(), chart.schema()):
        if not any(f"`{'.'.join(path[:depth])}`" in readme for depth in range(1, len(path) + 1)):
            raise Fault(f"helm/rtm-bridge/README.md does not name {'.'.join(path)}")


def examples_of_the_readme_render():
    """Its values file, over what the text says must be there."""
    for block in re.findall(r"```yaml\n(.*?)```", (chart.CHART / "README.md").read_text(), re.S):
        given = yaml.safe_load(block.replace("key_sha256: …", f"key_sha256: {'a' * 64}"))
        if error := chart.refusal(given):
            raise Fault(f"the README's values do not render: {error}")


def commands_that_are_described_render():
    """Each `helm install` to paste, but those with a values file of the reader's own."""
    seen = 0
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), chart.CHART / "README.md"]:
        for command in re.findall(r"^helm (?:install|upgrade --install) ((?:.*\\\n)*.*)$", page.read_text(), re.M):
            arguments = shlex.split(command.replace("\\\n", " ").replace("key_sha256=…", f"key_sha256={'a' * 64}"))
            if "--values" in arguments:
                continue
            seen += 1
            code, _, err = run("helm", "template", *(argument for argument in arguments if argument != "--wait"))
            if code:
                raise Fault(f"{page.relative_to(ROOT)}: helm install {command}\n{err}")
    if not seen:
        raise Fault("nobody is told how to install the chart")


CHECKS = [
    bad_values_are_refused,
    every_value_is_used,
    every_key_of_the_configuration_can_be_reached,
    every_key_of_the_configuration_is_described,
    rendered_configurations_are_read,
    the_readme_names_every_value,
    examples_of_the_readme_render,
    commands_that_are_described_render,
]
