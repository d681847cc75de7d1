"""The chart, rendered."""

import copy
import functools
import json

import yaml

from shell import ROOT, Fault, must, run

CHART = ROOT / "helm/rtm-bridge"
NAMESPACE = "somewhere"
CASES = {path.name.removesuffix("-values.yaml"): path for path in sorted(CHART.glob("ci/*-values.yaml"))}


def case(name):
    return yaml.safe_load(CASES[name].read_text())


def values():
    return yaml.safe_load((CHART / "values.yaml").read_text())


@functools.cache
def schema():
    return json.loads((CHART / "values.schema.json").read_text())


def template(given, chart=CHART):
    """Exit code, manifests and complaints."""
    return run("helm", "template", "bridge", chart, "--namespace", NAMESPACE, "--values", "-", stdin=yaml.safe_dump(given))


@functools.cache
def _render(given):
    code, out, err = template(yaml.safe_load(given))
    if code:
        raise Fault(f"the chart does not render: {err}\n{given}")
    return out


def render(given):
    return _render(yaml.safe_dump(given))


def refusal(given):
    code, _, err = template(given)
    return err if code else None


def notes(given):
    out = must(
        "helm", "install", "bridge", CHART, "--namespace", NAMESPACE, "--dry-run=client", "--values", "-", stdin=yaml.safe_dump(given)
    )
    return out.split("\nNOTES:\n")[1].strip()


def documents(given):
    return [document for document in yaml.safe_load_all(render(given)) if document]


def every_case():
    """Each case with its manifests."""
    return [(name, documents(case(name))) for name in CASES]


def of_kind(manifests, kind, ending=""):
    return [one for one in manifests if one["kind"] == kind and one["metadata"]["name"].endswith(ending)]


def the(manifests, kind, ending=""):
    found = of_kind(manifests, kind, ending)
    if len(found) != 1:
        raise Fault(f"{len(found)} of kind {kind} that end with {ending!r}, instead of one")
    return found[0]


def bridge(manifests):
    """The Deployment of the bridge itself."""
    return next(one for one in of_kind(manifests, "Deployment") if component(one["spec"]["template"]) == "bridge")


def component(one):
    return one["metadata"].get("labels", {}).get("app.kubernetes.io/component")


def pods(manifests):
    """Name and pod of all that runs."""
    for one in manifests:
        if one["kind"] == "Pod":
            yield f"Pod {one['metadata']['name']}", one
        elif one["kind"] in ("Deployment", "Job"):
            yield f"{one['kind']} {one['metadata']['name']}", one["spec"]["template"]


def merged(base, change):
    """The values `base` with those of `change` over them, as Helm lays one file over another."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return copy.deepcopy(change)
    return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
