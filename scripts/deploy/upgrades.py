"""What the chart reads of a cluster that has the release already: an API server that knows few objects stands in for it."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

import chart
from shell import Fault, must, scratch

# All that the chart makes, since Helm asks for each; only some are read.
KINDS = {
    "/api/v1": ["ConfigMap", "Pod", "Secret", "Service", "ServiceAccount"],
    "/apis/apps/v1": ["Deployment"],
    "/apis/autoscaling/v2": ["HorizontalPodAutoscaler"],
    "/apis/batch/v1": ["Job"],
    "/apis/monitoring.coreos.com/v1": ["PodMonitor", "PrometheusRule"],
    "/apis/networking.k8s.io/v1": ["Ingress", "NetworkPolicy"],
    "/apis/policy/v1": ["PodDisruptionBudget"],
}


def plural(kind):
    return {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}.get(kind, kind.lower() + "s")


def serve(objects):
    """Answers discovery, and GET of these objects by their path."""
    groups = []
    answers = {"/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}, "/api": {"kind": "APIVersions", "versions": ["v1"]}, **objects}
    for path, kinds in KINDS.items():
        version = path.split("/", 2)[2]
        resources = [{"name": plural(kind), "kind": kind, "namespaced": True, "verbs": ["get"]} for kind in kinds]
        answers[path] = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
        if "/" in version:
            this = {"groupVersion": version, "version": version.split("/")[1]}
            groups.append({"name": version.split("/")[0], "versions": [this], "preferredVersion": this})
    answers["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = answers.get(self.path.split("?")[0].rstrip("/"))
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def upgrade(running, given, replicas):
    """The manifests of an upgrade, while the cluster has those of `running` with so many replicas."""
    objects = {}
    for one in running:
        there = {**one, "spec": {**one["spec"], "replicas": replicas}} if one["kind"] == "Deployment" else dict(one)
        texts = there.pop("stringData", {})
        if texts:
            there["data"] = {key: base64.b64encode(value.encode()).decode() for key, value in texts.items()}
        path = ("/api/" if one["apiVersion"] == "v1" else "/apis/") + one["apiVersion"]
        objects[f"{path}/namespaces/{chart.NAMESPACE}/{plural(one['kind'])}/{one['metadata']['name']}"] = there
    server = serve(objects)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": address}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    try:
        with scratch(kubeconfig_yaml=yaml.safe_dump(kubeconfig)) as at:
            out = must(
                "helm", "template", "bridge", chart.CHART, "--namespace", chart.NAMESPACE, "--values", "-",
                "--dry-run=server", "--is-upgrade", "--disable-openapi-validation", "--kubeconfig", at / "kubeconfig.yaml", stdin=yaml.safe_dump(given),
            )
    finally:
        server.shutdown()
    return list(filter(None, yaml.safe_load_all(out)))


def scaling_keeps_the_replicas_that_are_there():
    """Without the field Kubernetes would set 1, and all pods but one would end."""
    before = chart.documents(chart.case("production"))
    for change in [{"autoscaling": {"enabled": True}}, {"autoscaling": {"enabled": False, "external": True}}]:
        for there in (7, 0):
            deployment = chart.bridge(upgrade(before, chart.merged(chart.case("production"), change), there))
            if deployment["spec"].get("replicas") != there:
                raise Fault(f"{change}: {there} replicas become {deployment['spec'].get('replicas')}")


def pods_of_the_release_before_find_their_configuration():
    """One that is evicted during an update starts with what it had."""
    secret = lambda value: {"config": {"store": {"password": {"value": value}}}}
    old = chart.merged(chart.case("sandbox"), secret("one"))
    new = chart.merged(old, {**secret("two"), "bots": {}, "commonAnnotations": {"contact": "us"}, "config": {**secret("two")["config"], "log": {"filter": "debug"}}})
    before = chart.documents(old)
    after = upgrade(before, new, 2)
    mine = lambda manifests: {(one["kind"], one["metadata"]["name"]): one for one in manifests if one["kind"] in ("ConfigMap", "Secret") and one.get("immutable")}
    was, now = mine(before), mine(after)
    if len(was) != 2 or len(now) != 4:
        raise Fault(f"the release before has {sorted(was)}, the upgrade {sorted(now)}")
    for key, one in was.items():
        texts = one.get("stringData", {})
        data = one.get("data") or {name: base64.b64encode(value.encode()).decode() for name, value in texts.items()}
        if key not in now or now[key]["data"] != data:
            raise Fault(f"the upgrade deletes or changes {key}")
        if now[key]["metadata"]["annotations"].get("contact") != "us":
            raise Fault(f"{key} lacks the common annotations")
    again = mine(upgrade(after, new, 2))
    if len(again) != 2:
        raise Fault(f"an upgrade without changes keeps {sorted(again)}")


CHECKS = [scaling_keeps_the_replicas_that_are_there, pods_of_the_release_before_find_their_configuration]
