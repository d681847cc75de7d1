"""What must hold in the rendered manifests beyond their schemas: security, order, and that names meet."""

import json
import re
import tomllib

import yaml

import chart
from shell import ROOT, Fault, must, run, scratch

# The order in which Helm makes objects of one weight, as far as the chart has them.
ORDER = ["SecretProviderClass", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "Secret", "ConfigMap", "Service", "Pod", "Deployment", "Job"]


RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


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
                (pod.get("serviceAccountName", "default") != "default", "runs under an account that others may give rights to"),
                (context.get("seccompProfile", {}).get("type") == "RuntimeDefault", "has no seccomp profile"),
                (not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), "uses the host's namespaces"),
            )
            for volume in pod.get("volumes", []):
                kinds = set(volume) - {"name"}
                wanted(where, (kinds <= RESTRICTED_VOLUMES, f"mounts {kinds}"))
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
        before |= {("Secret", one["metadata"]["name"]) for one in chart.of_kind(manifests, "ExternalSecret")}
        initial = [one["name"] for one in chart.bridge(manifests)["spec"]["template"]["spec"].get("initContainers", [])]
        if bool([one for one in hooked if one["kind"] == "Job"]) == ("migrate" in initial):
            raise Fault(f"{name}: the store is migrated twice, or not at all")
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
            if chart.component(one) != "migrate":
                continue
            annotations = one["metadata"]["annotations"]
            policy = annotations["helm.sh/hook-delete-policy"].split(",")
            wanted(f"{name}: {one['metadata']['name']}", (set(policy) == {"before-hook-creation", "hook-succeeded"}, "stays"))
            ends = one["spec"].get("ttlSecondsAfterFinished") if one["kind"] == "Job" else "post-delete" in annotations["helm.sh/hook"]
            wanted(f"{name}: {one['kind']} {one['metadata']['name']}", (ends, "stays after an uninstallation if the migration failed"))
        rest = [one for one in manifests if "helm.sh/hook" not in one["metadata"].get("annotations", {})]
        there = before | {(one["kind"], one["metadata"]["name"]) for one in rest}
        for where, template in chart.pods(rest + hooks(manifests, "test")):
            for need in needs(template["spec"]):
                wanted(f"{name}: {where}", (need in there, f"needs {need}, which nobody makes"))


def an_update_never_drops_below_capacity():
    for name, manifests in chart.every_case():
        deployment = chart.bridge(manifests)
        spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
        container = pod["containers"][0]
        probes = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        wanted(
            f"{name}: the bridge",
            (spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, "is updated below its capacity"),
            (spec["minReadySeconds"] > 0, "counts as available before it has stood"),
            (probes["startupProbe"] == probes["livenessProbe"] == {"path": "/livez", "port": "admin"}, "is killed by the wrong probe"),
            (probes["readinessProbe"] == {"path": "/readyz", "port": "admin"}, "is ready by the wrong probe"),
            (container["lifecycle"]["preStop"]["sleep"]["seconds"] > 0, "gets its signal before endpoints forget it"),
            (("replicas" in spec) != any(chart.of_kind(manifests, kind) for kind in ("HorizontalPodAutoscaler", "ScaledObject")), "is scaled by two, or by none"),
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
    def template(change):
        return chart.bridge(chart.documents(chart.merged(chart.case("sandbox"), change)))["spec"]["template"]

    secret = lambda value: {"config": {"store": {"password": {"value": value}}}}
    for what, one, other in [
        ("a key", {"config": {"log": {"filter": "info"}}}, {"config": {"log": {"filter": "debug"}}}),
        ("a secret that the chart keeps", secret("one"), secret("other")),
    ]:
        if template(one) == template(other):
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
    """Real files, because Flux and others drop links; and what a release makes of them."""
    for name, original in [("alerts.yaml", "prometheus/alerts.yaml"), ("dashboard.json", "grafana/rtm-bridge.json")]:
        copy = chart.CHART / "files" / name
        if copy.is_symlink() or copy.read_text() != (ROOT / "deploy" / original).read_text():
            raise Fault(f"helm/rtm-bridge/files/{name} is not a copy of deploy/{original}: cp deploy/{original} {copy.relative_to(ROOT)}")
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"][0]["rules"]
    plain = {"replicaCount": 2, "metrics": {"prometheusRule": {"enabled": True, "selector": "", "runbookUrl": ""}}}
    made = chart.the(chart.documents(chart.merged(chart.case("sandbox"), plain)), "PrometheusRule")["spec"]["groups"][0]["rules"]
    if made != rules:
        raise Fault("without changes the PrometheusRule is not deploy/prometheus/alerts.yaml")


def alerts_take_what_the_values_say():
    change = {"replicaCount": 5, "metrics": {"prometheusRule": {
        "enabled": True, "runbookUrl": "https://wiki/run", "alertLabels": {"team": "chat"},
        "alerts": {"RtmBridgeTurnsFail": {"threshold": 0.2, "for": "9m", "severity": "page"}, "RtmBridgeHintsLost": {"enabled": False}, "RtmBridgePlatformRefuses": {"threshold": 0.3, "users": 10}},
    }}}
    made = chart.the(chart.documents(chart.merged(chart.case("sandbox"), change)), "PrometheusRule")["spec"]["groups"][0]["rules"]
    rules = {rule["alert"]: rule for rule in made}
    fail, missing, refuses = (rules[f"RtmBridge{name}"] for name in ("TurnsFail", "ReplicasMissing", "PlatformRefuses"))
    wanted(
        "the PrometheusRule",
        ("> 0.2 # threshold" in fail["expr"] and "0.05 # threshold" not in fail["expr"], "keeps a threshold"),
        (fail["for"] == "9m" and fail["labels"] == {"severity": "page", "team": "chat"}, f"keeps a time or a severity: {fail}"),
        (fail["annotations"]["runbook_url"] == "https://wiki/run#rtmbridgeturnsfail", "leads to another runbook"),
        ("RtmBridgeHintsLost" not in rules, "has an alert that is switched off"),
        ("< 5 # threshold" in missing["expr"], "does not know how many replicas are wanted"),
        ("> 0.3 # threshold" in refuses["expr"] and ">= 10 # users" in refuses["expr"], f"keeps the number of users: {refuses['expr']}"),
    )
    for rule in made:
        series = re.findall(r"(?:rtm_bridge|process)_[a-z_]+(\{[^}]*\})?", rule["expr"])
        wanted(f"the alert {rule['alert']}", (all('namespace="somewhere"' in selector for selector in series), "looks at other releases"))
    with scratch(rules_yaml=yaml.safe_dump({"groups": [{"name": "release", "rules": made}]})) as at:
        must("promtool", "check", "rules", at / "rules.yaml")


def each_release_has_a_dashboard_of_its_own():
    uids = set()
    for name in ("bridge", "other"):
        made = must("helm", "template", name, chart.CHART, "--namespace", chart.NAMESPACE, "--values", "-", stdin=yaml.safe_dump(chart.case("argocd")))
        [text] = chart.the(list(filter(None, yaml.safe_load_all(made))), "ConfigMap", "-dashboard")["data"].values()
        dashboard = json.loads(text)
        # Grafana takes no longer one.
        wanted(f"the dashboard of {name}", (len(dashboard["uid"]) <= 40, "has a uid that is too long"), (name in dashboard["title"], "does not say whose it is"))
        uids.add(dashboard["uid"])
    wanted("two releases", (len(uids) == 2, "share the uid of their dashboards"))


def limits_follow_from_the_pods_resources():
    def server(change):
        manifests = chart.documents(chart.merged(chart.case("sandbox"), change))
        text = chart.the([one for one in chart.of_kind(manifests, "ConfigMap") if one.get("immutable")], "ConfigMap")["data"]["config.toml"]
        return tomllib.loads(text)["server"]

    sized = lambda memory, cpu: {"resources": {"limits": {"memory": memory}, "requests": {"cpu": cpu, "memory": "64Mi"}}}
    for change, sockets, connections, memory, threads in [
        ({}, 15000, 4000, "192MiB", 1),
        (sized("2Gi", "1500m"), 30000, 8000, "384MiB", 2),
        (sized("512Mi", 3), 7500, 2000, "96MiB", 3),
        (sized("1048576Ki", "0.5"), 15000, 4000, "192MiB", 1),
        (sized("1G", "500m"), 13959, 3722, "178MiB", 1),
        (sized("1000M", "500m"), 13959, 3722, "178MiB", 1),
        (sized("1.5Gi", "2"), 22500, 6000, "288MiB", 2),
        (sized("1073741824000m", "0.2"), 15000, 4000, "192MiB", 1),
        (sized(1073741824, "0.2"), 15000, 4000, "192MiB", 1),
        ({"resources": {"limits": None}}, 3750, 1000, "48MiB", 1),
        ({"config": {"server": {"max_sockets": 7, "memory_limit": "64MiB"}}}, 7, 4000, "64MiB", 1),
    ]:
        found = server(change)
        given = found["max_sockets"], found["max_connections"], found["memory_limit"], found["threads"]
        if given != (sockets, connections, memory, threads):
            raise Fault(f"{change}: {given}")


def the_configuration_has_another_name_for_another_content_only():
    """Labels and the number of pods are no content."""
    secret = {"config": {"store": {"password": {"value": "one"}}}}
    base = chart.merged(chart.case("sandbox"), secret)
    named = lambda change: {one["metadata"]["name"] for one in chart.documents(chart.merged(base, change)) if one.get("immutable")}
    before = named({})
    for change in [{"commonLabels": {"team": "chat"}}, {"replicaCount": 5}, {"extraEnv": [{"name": "A", "value": "b"}]}, {"service": {"port": 81}}]:
        wanted(f"{change}: the configuration", (named(change) == before, f"is called {named(change)} instead of {before}"))
    for change in [{"config": {"log": {"format": "text"}}}, {"config": {"store": {"password": {"value": "two"}}}}]:
        wanted(f"{change}", (len(named(change) - before) == 1 == len(before - named(change)), "changes not one name"))


def objects_have_names_that_kubernetes_takes():
    """Those of Services begin with a letter and have no dots, and none is longer than 63."""
    def made(release, change=None):
        return run("helm", "template", release, chart.CHART, "--namespace", chart.NAMESPACE, "--values", "-", stdin=yaml.safe_dump(chart.merged(chart.case("everything"), {"nameOverride": "", "fullnameOverride": "", **(change or {})})))

    for release, change in [("my.bridge", None), ("r" * 53, None), ("b-" * 25 + "b", None), ("9", {"fullnameOverride": "b" * 52})]:
        code, out, err = made(release, change)
        wanted(release, (code == 0, f"does not render: {err}"))
        for one in filter(None, yaml.safe_load_all(out)):
            name = one["metadata"]["name"]
            wanted(f"{release}: the {one['kind']} {name}", (re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name), "has a name that Kubernetes refuses"))
    code, _, err = made("9")
    wanted("the release 9", (code and "fullnameOverride" in err, "renders, and the API refuses its Service"))


def injected_files_hold_one_secret_each():
    """Without a template Vault's injector writes all fields of a secret, with their names."""
    prefix = "vault.hashicorp.com/agent-inject-"
    for name, manifests in chart.every_case():
        for where, template in chart.pods(manifests):
            annotations = template["metadata"].get("annotations", {})
            for key in annotations:
                if key.startswith(f"{prefix}secret-"):
                    wanted(f"{name}: {where}", (f"{prefix}template-{key.removeprefix(f'{prefix}secret-')}" in annotations, f"has no template for {key}"))


def probes_and_metrics_stay_without_tls():
    for told in ("https", "kubernetes.io/h2c", "", None):
        services = chart.of_kind(chart.documents(chart.merged(chart.case("sandbox"), {"service": {"appProtocol": told}})), "Service")
        found = {port["name"]: port.get("appProtocol") for one in services for port in one["spec"]["ports"]}
        wanted(f"service.appProtocol {told}", (found["http"] == (told or None), "is not that of callers"), (found["admin"] == ("http" if told else None), "is that of the port admin too"))


def labels_and_annotations_reach_every_object_and_pod():
    change = {"commonLabels": {"team": "chat"}, "commonAnnotations": {"contact": "us"}, "podLabels": {"tier": "web"}, "podAnnotations": {"proxy": "on"}}
    own = {"migrate": {"podLabels": {"tier": "job"}, "podAnnotations": {"proxy": "off"}}, "test": {"podAnnotations": {"proxy": "off"}}}
    manifests = chart.documents(chart.merged(chart.merged(chart.case("everything"), change), own))
    for one in manifests:
        if one["metadata"]["name"].endswith(("-note", "-text")):
            continue
        for where, metadata in [("object", one["metadata"]), ("pod", one.get("spec", {}).get("template", {}).get("metadata"))]:
            if metadata is not None:
                wanted(
                    f"{one['kind']} {metadata.get('name', '')} ({where})",
                    (metadata["labels"].get("team") == "chat", "lacks the common label"),
                    (metadata.get("annotations", {}).get("contact") == "us", "lacks the common annotation"),
                )
    for where, template in chart.pods(manifests):
        kind = chart.component(template)
        labels, annotations = template["metadata"]["labels"], template["metadata"]["annotations"]
        wanted(
            where,
            (labels.get("tier") == ("job" if kind == "migrate" else "web"), f"has the label {labels.get('tier')}"),
            (annotations.get("proxy") == ("off" if kind in ("migrate", "test") else "on"), f"has the annotation {annotations.get('proxy')}"),
        )
    for one in manifests:
        selector = one.get("spec", {}).get("selector") or {}
        wanted(f"{one['kind']} {one['metadata']['name']}", ("team" not in str(selector) and "tier" not in str(selector), "selects by a label that may change"))


def every_pod_has_a_policy_with_what_the_operator_opens():
    for name, manifests in chart.every_case():
        if not chart.case(name).get("networkPolicy", {}).get("enabled", True):
            continue
        extra = chart.case(name).get("networkPolicy", {}).get("egress", {}).get("extra", [])
        ports = chart.case(name).get("networkPolicy", {}).get("egress", {}).get("dnsPorts", [53])
        policies = chart.of_kind(manifests, "NetworkPolicy")
        for where, template in chart.pods(manifests):
            mine = [one for one in policies if matches(one["spec"]["podSelector"]["matchLabels"], template["metadata"]["labels"])]
            wanted(f"{name}: {where}", (len(mine) == 1, f"has {len(mine)} policies"))
            egress = mine[0]["spec"].get("egress", [])
            wanted(f"{name}: {where}", (all(rule in egress for rule in extra), "may not go where networkPolicy.egress.extra opens"))
            if chart.component(template) != "sandbox":
                told = {port["port"] for port in egress[0]["ports"]}
                wanted(f"{name}: {where}", (told == set(ports), f"asks DNS on {told}"))


def a_wrong_configuration_fails_the_migration_at_once():
    job = chart.the(chart.documents(chart.case("production")), "Job")["spec"]
    rules = job["podFailurePolicy"]["rules"]
    wanted(
        "the migration",
        ({"action": "FailJob", "onExitCodes": {"containerName": "migrate", "operator": "In", "values": [78]}} in rules, "repeats what cannot succeed"),
        (job["template"]["spec"]["restartPolicy"] == "Never", "has a failure policy that Kubernetes does not take"),
    )


def helm_warns_of_nothing():
    """Of a URL in a Secret, for instance, over a default that is a text."""
    secret = {"config": {"store": {"url": {"existingSecret": "redis", "key": "url"}}}}
    for given in [chart.merged(chart.case("production"), secret), *map(chart.case, chart.CASES)]:
        code, _, err = chart.template(given)
        if code or "warning" in err.lower():
            raise Fault(f"helm template says: {err}")


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
    alerts_take_what_the_values_say,
    each_release_has_a_dashboard_of_its_own,
    limits_follow_from_the_pods_resources,
    the_configuration_has_another_name_for_another_content_only,
    objects_have_names_that_kubernetes_takes,
    injected_files_hold_one_secret_each,
    probes_and_metrics_stay_without_tls,
    labels_and_annotations_reach_every_object_and_pod,
    every_pod_has_a_policy_with_what_the_operator_opens,
    a_wrong_configuration_fails_the_migration_at_once,
    helm_warns_of_nothing,
]
