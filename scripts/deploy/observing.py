"""Alerts, their runbook, and the dashboard: that they ask for what a running bridge exposes."""

import json
import re

import yaml

from played import played
from shell import ROOT, Fault, must, scratch

ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD = ROOT / "deploy/grafana/rtm-bridge.json"
# The labels that Prometheus and Kubernetes add to each series.
ADDED = {"cluster", "job", "instance", "namespace", "pod"}
# The variables that Grafana defines itself.
GRAFANA = {"__rate_interval", "__all"}


def rules():
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def queries():
    """Where each query is, and the query."""
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]
    for panel in panels():
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]


def alerts_fire_when_they_should():
    must("promtool", "check", "rules", ALERTS)
    files = sorted((ROOT / "deploy/prometheus").glob("*_test.yaml"))
    must("promtool", "test", "rules", *files)
    tests = [test for file in files for test in yaml.safe_load(file.read_text())["tests"]]
    seen = [(one["alertname"], bool(one["exp_alerts"])) for test in tests for one in test["alert_rule_test"]]
    for rule in rules():
        for fires in (True, False):
            if (rule["alert"], fires) not in seen:
                raise Fault(f"no test sees {rule['alert']} {'fire' if fires else 'stay silent'}")


def alerts_have_an_entry_in_the_runbook():
    text = (ROOT / "docs/operations.md").read_text()
    headings = {re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-")) for title in re.findall(r"^#+ (.*)$", text, re.M)}
    missing = []
    for rule in rules():
        name, address = rule["alert"], rule["annotations"]["runbook_url"]
        if address != f"docs/operations.md#{name.lower()}":
            raise Fault(f"{name}: its runbook_url is {address}")
        if name.lower() not in headings:
            missing.append(name)
        if rule["labels"]["severity"] not in ("critical", "warning"):
            raise Fault(f"{name}: how bad is it?")
    if missing:
        raise Fault(f"docs/operations.md has no heading for {', '.join(missing)}")
    for heading in re.findall(r"^### (RtmBridge\w+)$", text, re.M):
        if heading not in {rule["alert"] for rule in rules()}:
            raise Fault(f"docs/operations.md has an entry for {heading}, which is no alert")


def families():
    """What a running bridge exposes: metrics with their types, labels and the labels' values."""
    text = played()[2]
    known = {name: (kind, {}) for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)}
    for name, labels in re.findall(r"^([a-z_]+)\{(.*)\} \S+$", text, re.M):
        family = name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
            known[family][1].setdefault(label, set()).add(value)
    return known


def family(known, name, where):
    short = re.sub(r"_(bucket|sum|count)$", "", name)
    if name in known and known[name][0] != "histogram":
        return known[name]
    if short != name and known.get(short, ("",))[0] == "histogram":
        return known[short]
    raise Fault(f"{where}: {name} is no series of the bridge")


def queries_ask_for_what_there_is():
    known = families()
    for where, query in queries():
        labels = set(ADDED)
        for name, selector in re.findall(r"\b((?:rtm_bridge|process)_\w+)(?:\{([^}]*)\})?", query):
            kind, having = family(known, name, where)
            labels |= set(having)
            for label, how, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
                if label not in ADDED and label not in having:
                    raise Fault(f"{where}: {name} has no label {label}")
                if how == "=" and label in having and value not in having[label]:
                    raise Fault(f"{where}: {label} of {name} is never {value}")
            if kind in ("counter", "histogram") and not re.search(rf"(rate|increase)\({name}\b", query):
                raise Fault(f"{where}: {name} only ever grows; ask for its rate")
        if where.startswith("alert") and "by (" in query and any("cluster" not in listed for listed in re.findall(r"\b(?:by|group by) *\(([^)]*)\)", query)):
            raise Fault(f"{where}: it adds up what two clusters report")
        for listed in re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", query):
            for label in filter(None, re.split(r"\s*,\s*", listed.strip())):
                if label not in labels:
                    raise Fault(f"{where}: nothing has the label {label}")
    for name in re.findall(r"name: ((?:rtm_bridge|process)_\w+)", (ROOT / "helm/rtm-bridge/templates/hpa.yaml").read_text()):
        if family(known, name, "hpa.yaml")[0] != "gauge":
            raise Fault(f"hpa.yaml: {name} is no gauge")


def every_metric_is_described():
    """In the table of operations.md, and nothing else is in there."""
    text = (ROOT / "docs/operations.md").read_text().split("## Health and metrics")[1].split("\n## ")[0]
    table = text.split("| metric | labels | |")[1].split("\n\n")[0]
    rows = {name: set(re.findall(r"`([a-z_]+)`", labels)) for name, labels in re.findall(r"^\| `([a-z_]+)` \|([^|]*)\|", table, re.M)}
    known = {name.removeprefix("rtm_bridge_"): labels for name, (_, labels) in families().items() if name.startswith("rtm_bridge_")}
    for name in sorted(set(rows) ^ set(known)):
        raise Fault(f"docs/operations.md: {name} is {'no metric' if name in rows else 'not described'}")
    for name, labels in known.items():
        if labels and set(labels) - {"le"} != rows[name]:
            raise Fault(f"docs/operations.md: {name} has the labels {sorted(set(labels) - {'le'})}")


def the_dashboard_is_whole():
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in panels()]
    if len(ids) != len(set(ids)):
        raise Fault(f"two panels have one id: {sorted(ids)}")
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    filtered = {"cluster", "namespace", "job"}
    for target in (target for panel in panels() for target in panel.get("targets", []) if "rtm_bridge_" in target["expr"].split(" and on ")[0]):
        for variable in filtered - set(re.findall(r"=~\"\$(\w+)\"", target["expr"])):
            raise Fault(f"a query does not ask for ${variable}: {target['expr']}")
    for variable in sorted(set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())) - variables - GRAFANA):
        raise Fault(f"there is no variable ${variable}")
    taken = set()
    for panel in panels():
        at, title = panel["gridPos"], panel["title"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        if taken & cells or at["x"] + at["w"] > 24:
            raise Fault(f"{title} lies over another panel, or beside the page")
        taken |= cells
        if panel["type"] == "row":
            continue
        if not panel["description"] or not panel["fieldConfig"]["defaults"]["unit"] or not panel["targets"]:
            raise Fault(f"{title} lacks a description, a unit or a query")
        for part in [panel, *panel["targets"]]:
            if part["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
                raise Fault(f"{title} asks another data source: {part['datasource']}")
    shown = {panel["title"] for panel in panels() if panel["type"] == "row"}
    for row in ("Turns", "The platform", "The fleet: who owns what", "Webhooks: the outbox", "Redis", "Saturation"):
        if row not in shown:
            raise Fault(f"there is no row {row}: {sorted(shown)}")


def the_dashboards_queries_can_be_read():
    """promtool reads rules only, so each query becomes one."""
    texts = [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    asked = [text.replace("$__rate_interval", "5m") for text in texts]
    group = {"name": "dashboard", "rules": [{"record": f"query:{number}", "expr": text} for number, text in enumerate(asked)]}
    with scratch(rules_yaml=yaml.safe_dump({"groups": [group]})) as at:
        must("promtool", "check", "rules", at / "rules.yaml")


CHECKS = [
    alerts_fire_when_they_should,
    alerts_have_an_entry_in_the_runbook,
    queries_ask_for_what_there_is,
    every_metric_is_described,
    the_dashboard_is_whole,
    the_dashboards_queries_can_be_read,
]
