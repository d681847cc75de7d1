"""What must hold in the rendered manifests beyond their schemas: security, order, and that names meet."""

import yaml

import chart
from shell import ROOT, Fault

# The order in which Helm makes objects of one weight, as far as the chart has them.
ORDER = ["NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "Secret", "ConfigMap", "Service", "Pod", "Deployment", "Job"]


def wanted(where, *facts):
    for holds, what in facts:
        if not holds:
            raise Fault(f"{where} {what}")


def pods_keep_the_restricted_profile():
    """The Pod Security Standard `restricted`, field by field, and a root file system that cannot be written."""
    for name, manifests in chart.every_case():
        for where, template in chart.pods(manifests):
            where, pod = f"{name}: {where}", template["spec"]
            context = pod.get("securityContext", {})
            wanted(
                where,
                (pod.get("automountServiceAccountToken") is False, "mounts a service account's token"),
                (context.get("runAsNonRoot") is True and context.get("runAsUser", 1) != 0, "may run as root"),
                (context.get("seccompProfile", {}).get("type") == "RuntimeDefault", "has no seccomp profile"),
                (not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), "uses the host's namespaces"),
            )
            for volume in pod.get("volumes", []):
                kinds = set(volume) - {"name"}
                wanted(where, (kinds <= {"configMap", "secret", "projected", "emptyDir", "downwardAPI"}, f"mounts {kinds}"))
            for container in pod["containers"] + pod.get("initContainers", []):
                inner = container.get("securityContext", {})
                wanted(
                    where,
                    (inner.get("allowPrivilegeEscalation") is False, "may gain privileges"),
                    (inner.get("readOnlyRootFilesystem") is True, "may write to its root file system"),
                    (inner.get("capabilities", {}).get("drop") == ["ALL"], "keeps capabilities"),
                    (not inner.get("capabilities", {}).get("add"), "adds capabilities"),
                    (not inner.get("privileged"), "is privileged"),
                    (inner.get("runAsUser", 1) != 0, "runs a container as root"),
                    (not any("hostPort" in port for port in container.get("ports", [])), "takes a port of the host"),
                    ("memory" in container["resources"].get("limits", {}), "has no memory limit"),
                    ({"cpu", "memory"} <= set(container["resources"].get("requests", {})), "does not say what it needs"),
                )


def hooks(manifests, event):
    """The objects of a hook in the order in which Helm makes them."""
    having = [one for one in manifests if event in one["metadata"].get("annotations", {}).get("helm.sh/hook", "").split(",")]
    weight = lambda one: int(one["metadata"]["annotations"].get("helm.sh/hook-weight", 0))
    return sorted(having, key=lambda one: (weight(one), ORDER.index(one["kind"]), one["metadata"]["name"]))


def needs(pod):
    """What a pod cannot start without, as kind and name."""
    yield "ServiceAccount", pod.get("serviceAccountName", "default")
    for volume in pod.get("volumes", []):
        for source in [volume, *volume.get("projected", {}).get("sources", [])]:
            if "configMap" in source:
                yield "ConfigMap", source["configMap"]["name"]
            if "secret" in source:
                yield "Secret", source["secret"].get("secretName") or source["secret"]["name"]


def external(given):
    """What the values say is there already."""
    if isinstance(given, dict):
        for kind, key in (("Secret", "existingSecret"), ("ConfigMap", "existingConfigMap")):
            if key in given:
                yield kind, given[key]
        for value in given.values():
            yield from external(value)


def what_a_pod_needs_is_there_before_it():
    """On a first installation: hooks come before everything else, and what a hook made is gone when it succeeded."""
    for name in chart.CASES:
        given = chart.case(name)
        manifests = chart.documents(given)
        before = {("ServiceAccount", "default"), *external(given)}
        hooked = hooks(manifests, "pre-install")
        if not hooked and name != "memory":
            raise Fault(f"{name}: nothing migrates the store")
        if hooked != hooks(manifests, "pre-upgrade"):
            raise Fault(f"{name}: an upgrade migrates otherwise than an installation")
        there = set(before)
        for one in hooked:
            if one["kind"] == "Job":
                for need in needs(one["spec"]["template"]["spec"]):
                    wanted(f"{name}: the hook {one['metadata']['name']}", (need in there, f"needs {need}, which is not there yet"))
                policy = [other for other in hooked if other["kind"] == "NetworkPolicy"]
                wanted(name, (not policy or hooked.index(policy[0]) < hooked.index(one), "migrates before its NetworkPolicy"))
            there.add((one["kind"], one["metadata"]["name"]))
            policy = one["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")
            wanted(f"{name}: {one['metadata']['name']}", (set(policy) == {"before-hook-creation", "hook-succeeded"}, "stays"))
        rest = [one for one in manifests if "helm.sh/hook" not in one["metadata"].get("annotations", {})]
        there = before | {(one["kind"], one["metadata"]["name"]) for one in rest}
        for where, template in chart.pods(rest + hooks(manifests, "test")):
            for need in needs(template["spec"]):
                wanted(f"{name}: {where}", (need in there, f"needs {need}, which nobody makes"))


def an_update_never_drops_below_capacity():
    for name, manifests in chart.every_case():
        deployment = chart.bridge(manifests)
        spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
        [container] = pod["containers"]
        probes = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        wanted(
            f"{name}: the bridge",
            (spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, "is updated below its capacity"),
            (spec["minReadySeconds"] > 0, "counts as available before it has stood"),
            (probes["startupProbe"] == probes["livenessProbe"] == {"path": "/livez", "port": "admin"}, "is killed by the wrong probe"),
            (probes["readinessProbe"] == {"path": "/readyz", "port": "admin"}, "is ready by the wrong probe"),
            (container["lifecycle"]["preStop"]["sleep"]["seconds"] > 0, "gets its signal before endpoints forget it"),
            (("replicas" in spec) != bool(chart.of_kind(manifests, "HorizontalPodAutoscaler")), "is scaled by two, or by nobody"),
        )


def two_pods_never_have_a_store_each():
    change = {"replicaCount": 1, "config": {"store": {"url": "memory://"}}}
    deployment = chart.bridge(chart.documents(chart.merged(chart.case("sandbox"), change)))
    wanted("memory://", (deployment["spec"]["strategy"] == {"type": "Recreate"}, "is updated with two pods at a time"))


def grace_fits_the_drain():
    for drain, before, reserve, seconds in [("30s", 5, 10, 45), ("1m30s", 0, 10, 100), ("2500ms", 1, 1, 5), ("1h", 0, 0, 3600)]:
        change = {"config": {"server": {"drain_timeout": drain, "grace": "1s"}}}
        change |= {"preStopSleepSeconds": before, "terminationReserveSeconds": reserve}
        pod = chart.bridge(chart.documents(chart.merged(chart.case("sandbox"), change)))["spec"]["template"]["spec"]
        given = pod["terminationGracePeriodSeconds"]
        if given != seconds:
            raise Fault(f"drain_timeout {drain}: {given} s before the kill instead of {seconds}")


def a_change_of_configuration_or_secret_restarts_the_pods():
    def sums(change):
        template = chart.bridge(chart.documents(chart.merged(chart.case("sandbox"), change)))["spec"]["template"]
        return template["metadata"]["annotations"]

    secret = lambda value: {"config": {"store": {"password": {"value": value}}}}
    for what, one, other in [
        ("a key", {"config": {"log": {"filter": "info"}}}, {"config": {"log": {"filter": "debug"}}}),
        ("a secret that the chart keeps", secret("one"), secret("other")),
    ]:
        if sums(one) == sums(other):
            raise Fault(f"{what} changes, and the pods stay as they are")


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def names_meet():
    """Selectors select what is meant and nothing else, and named ports are there."""
    for name, manifests in chart.every_case():
        pods = [(where, template["metadata"]["labels"], template["spec"]) for where, template in chart.pods(manifests)]

        def selected(selector, where):
            found = [pod for pod in pods if matches(selector, pod[1])]
            wanted(f"{name}: {where}", (len(found) == 1, f"selects {[pod[0] for pod in found]}"))
            return found[0][2]

        def ports(pod):
            return {port["name"] for container in pod["containers"] for port in container.get("ports", [])}

        deployments = {one["metadata"]["name"] for one in chart.of_kind(manifests, "Deployment")}
        services = {one["metadata"]["name"]: one for one in chart.of_kind(manifests, "Service")}
        for one in manifests:
            kind, spec = one["kind"], one.get("spec", {})
            where = f"{kind} {one['metadata']['name']}"
            if kind == "Service":
                pod = selected(spec["selector"], where)
                wanted(f"{name}: {where}", ({port["targetPort"] for port in spec["ports"]} <= ports(pod), "leads to a port that is not there"))
            elif kind in ("Deployment", "PodDisruptionBudget"):
                selected(spec["selector"]["matchLabels"], where)
            elif kind == "NetworkPolicy":
                pod = selected(spec["podSelector"]["matchLabels"], where)
                told = {port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]}
                wanted(f"{name}: {where}", (told <= ports(pod), f"opens {told}, which it does not have"))
                wanted(f"{name}: {where}", (spec["policyTypes"] == ["Ingress", "Egress"], "leaves a direction open"))
            elif kind == "HorizontalPodAutoscaler":
                wanted(f"{name}: {where}", (spec["scaleTargetRef"]["name"] in deployments, "scales nothing"))
                wanted(f"{name}: {where}", (spec["metrics"], "scales by nothing"))
            elif kind == "Ingress":
                for rule in spec["rules"]:
                    for path in rule["http"]["paths"]:
                        to = path["backend"]["service"]
                        told = {port["name"] for port in services[to["name"]]["spec"]["ports"]}
                        wanted(f"{name}: {where}", (to["port"]["name"] in told, "leads nowhere"))
            elif kind == "HTTPRoute":
                for rule in spec["rules"]:
                    for to in rule["backendRefs"]:
                        told = {port["port"] for port in services[to["name"]]["spec"]["ports"]}
                        wanted(f"{name}: {where}", (to["port"] in told, "leads nowhere"))
            elif kind == "ServiceMonitor":
                found = [service for service in services.values() if matches(spec["selector"]["matchLabels"], service["metadata"]["labels"])]
                read = [port["name"] for service in found for port in service["spec"]["ports"] if port["name"] == spec["endpoints"][0]["port"]]
                wanted(f"{name}: {where}", (len(read) == 1, f"reads {len(read)} Services"))
            elif kind == "PodMonitor":
                pod = selected(spec["selector"]["matchLabels"], where)
                wanted(f"{name}: {where}", (spec["podMetricsEndpoints"][0]["port"] in ports(pod), "reads a port that is not there"))
        spread = chart.bridge(manifests)["spec"]["template"]["spec"].get("topologySpreadConstraints", [])
        wanted(name, (spread, "stacks all pods on one node"))
        for constraint in spread:
            selected(constraint["labelSelector"]["matchLabels"], "topologySpreadConstraints")


def the_outside_never_sees_metrics():
    for kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        change = {"service": {"type": kind}, "networkPolicy": {"enabled": True}}
        manifests = chart.documents(chart.merged(chart.case("sandbox"), change))
        services = [one for one in chart.of_kind(manifests, "Service") if one["spec"]["selector"]["app.kubernetes.io/component"] == "bridge"]
        told = sorted((port["name"], one["spec"].get("type", "ClusterIP")) for one in services for port in one["spec"]["ports"])
        if told != [("admin", "ClusterIP"), ("http", kind)]:
            raise Fault(f"service.type {kind}: {told}")
        policy = next(one for one in chart.of_kind(manifests, "NetworkPolicy") if "component" not in one["metadata"]["name"] and one["metadata"]["name"].endswith("bridge"))
        [callers] = [rule for rule in policy["spec"]["ingress"] if [port["port"] for port in rule["ports"]] == ["http"]]
        if ("from" in callers) != (kind == "ClusterIP"):
            raise Fault(f"service.type {kind}: callers may come from {callers.get('from')}")


def egress_fits_the_urls():
    """The ports that the configuration names are open; the policy of the migration opens Redis only."""
    redis = lambda url: {"config": {"store": {"url": url}}}
    bot = lambda **more: {"bots": {"b": {"platform": "https://h", "chat_bot": "B", "task_bot_id": "st", "client_id": "cs", "client_secret": {"value": "x"}, **more}}}
    opened = lambda to, *ports: {"networkPolicy": {"egress": {to: {"ports": list(ports)}}}}
    for change, open_to_redis, open_to_web in [
        (redis("redis://redis"), [6379], [443]),
        (redis("rediss://user:1:2@redis:7000/0"), [6379, 7000], [443]),
        (redis("redis+sentinel://a,b:5000,[::1]:5001/main"), [6379, 26379, 5000, 5001], [443]),
        (redis("redis+cluster://a:7000,b"), [6379, 7000], [443]),
        (redis({"existingSecret": "s", "key": "k"}), [6379], [443]),
        (bot(platform="http://h:8000", socket_base="wss://s:9443", webhooks={"e": {"url": "http://r/in", "secrets": {"value": "x"}}}), [6379], [443, 8000, 9443, 80]),
        ({"config": {"webhooks": {"allowed": ["https://*.example.com:8443/in"]}}}, [6379], [443, 8443]),
        ({"config": {"webhooks": None}}, [6379], [443]),
        # Kubernetes takes a rule without ports as one for all ports.
        ({**redis("redis://redis:7000"), **opened("redis")}, [7000], [443]),
        (opened("web"), [6379], None),
        ({**bot(platform="http://h:8000"), **opened("web")}, [6379], [8000]),
        ({**redis({"existingSecret": "s", "key": "k"}), **opened("redis", 7000)}, [7000], [443]),
    ]:
        manifests = chart.documents(chart.merged(chart.case("sandbox"), change))
        for ending, rules in [("migrate", [open_to_redis]), ("rtm-bridge", [open_to_redis, *filter(None, [open_to_web]), [4000]])]:
            policy = chart.the(manifests, "NetworkPolicy", ending)
            ports = [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]
            if ports != [[53, 53], *rules]:
                raise Fault(f"{change}: {ending} may reach {ports}, instead of {rules}")


def alerts_and_dashboard_are_those_of_deploy():
    for name, manifests in chart.every_case():
        for one in chart.of_kind(manifests, "PrometheusRule"):
            if one["spec"] != yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text()):
                raise Fault(f"{name}: the PrometheusRule is not deploy/prometheus/alerts.yaml")
        for one in chart.of_kind(manifests, "ConfigMap", "-dashboard"):
            if one["data"]["rtm-bridge.json"].strip() != (ROOT / "deploy/grafana/rtm-bridge.json").read_text().strip():
                raise Fault(f"{name}: the dashboard is not deploy/grafana/rtm-bridge.json")


CHECKS = [
    pods_keep_the_restricted_profile,
    what_a_pod_needs_is_there_before_it,
    an_update_never_drops_below_capacity,
    two_pods_never_have_a_store_each,
    grace_fits_the_drain,
    a_change_of_configuration_or_secret_restarts_the_pods,
    names_meet,
    the_outside_never_sees_metrics,
    egress_fits_the_urls,
    alerts_and_dashboard_are_those_of_deploy,
]
