"""What tools of others say of the image's recipe, the compose file and the manifests."""

import json
import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml
from compose_spec import ComposeSpecification, Service

import chart
from shell import BRIDGE, ROOT, Fault, must, run, scratch

# The oldest that Chart.yaml allows, the newest that is known, and one between.
KUBERNETES = ["1.30", "1.34", "1.37"]

# Rules of checkov that are not followed, and why.
NOT_FOLLOWED = {
    "CKV_K8S_8": "of the pod of helm test, which runs once",
    "CKV_K8S_9": "of the pod of helm test, which runs once",
    "CKV_K8S_11": "a CPU limit throttles turns; the request guarantees what is needed",
    "CKV_K8S_14": "the tag is the chart's version unless one is given",
    "CKV_K8S_15": "images have versions or digests, so IfNotPresent is right",
    "CKV_K8S_21": "the namespace is given when the chart is installed",
    "CKV_K8S_43": "a digest is the operator's to pin (image.digest)",
    "CKV2_K8S_6": "of the pod of helm test, which runs once",
}
# Rules that a kind of cluster excludes, and why.
EXCLUDED = {
    ("openshift", "CKV_K8S_40"): "the cluster gives each namespace its own user ids",
}


def hadolint_finds_nothing():
    must("hadolint", "deploy/Dockerfile")


def checkov_finds_nothing():
    """It is slow to start, so it looks at everything at once."""
    rendered = {f"{name}_yaml": chart.render(chart.case(name)) for name in chart.CASES if name != "everything"}
    with scratch(Dockerfile=(ROOT / "deploy/Dockerfile").read_text(), **rendered) as at:
        _, out, err = run(
            "checkov", "--directory", at, "--framework", "dockerfile", "kubernetes",
            "--skip-download", "--skip-check", ",".join(NOT_FOLLOWED), "--compact", "--output", "json",
        )
    try:
        reports = json.loads(out)
    except json.JSONDecodeError:
        raise Fault(f"checkov says nothing that can be read: {out}{err}") from None
    reports = {report["check_type"]: report for report in (reports if isinstance(reports, list) else [reports]) if "check_type" in report}
    for framework, least in [("dockerfile", 10), ("kubernetes", 1500)]:
        looked = reports.get(framework, {}).get("summary", {}).get("passed", 0)
        if looked < least:
            raise Fault(f"checkov looked at {looked} rules of {framework}, which is nearly nothing: {err}")
    failed = [
        f"{check['check_id']} {check['check_name']}: {check['resource']} in {check['file_path']}"
        for report in reports.values()
        for check in report["results"]["failed_checks"]
        if (Path(check["file_path"]).stem, check["check_id"]) not in EXCLUDED
    ]
    if failed:
        raise Fault("\n".join(failed))


def compose_is_right():
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    try:
        ComposeSpecification.model_validate(compose)
    except ValueError as error:
        raise Fault(f"compose.yaml: {error}") from None
    known = {field.alias or name for name, field in ComposeSpecification.model_fields.items()}
    for key in compose:
        if key not in known and not key.startswith("x-"):
            raise Fault(f"compose.yaml: there is no such key: {key}")
    known = {field.alias or name for name, field in Service.model_fields.items()}
    for name, service in compose["services"].items():
        for key in service:
            if key not in known:
                raise Fault(f"compose.yaml: {name}: there is no such key: {key}")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(".") and not (ROOT / "deploy" / source).exists():
                raise Fault(f"compose.yaml: {name} mounts {source}, which is not there")
            if not source.startswith(".") and source not in compose["volumes"]:
                raise Fault(f"compose.yaml: {name} mounts {source}, which is no volume")
        for other in service.get("depends_on", {}):
            if other not in compose["services"]:
                raise Fault(f"compose.yaml: {name} depends on {other}, which is not there")
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                raise Fault(f"compose.yaml: {name} is open to other machines ({port})")
        if not re.search(r":[\w.-]+$", service["image"]):
            raise Fault(f"compose.yaml: {name} has no version ({service['image']})")
    must("compose-lint", "check", "--quiet", "--no-env", "deploy/compose.yaml")
    must(BRIDGE, "check-config", "--config", "deploy/compose/bridge.toml")
    must("promtool", "check", "config", "--syntax-only", "deploy/compose/prometheus.yaml")


def the_chart_is_linted_and_packed_whole():
    for name, path in chart.CASES.items():
        must("helm", "lint", "--strict", chart.CHART, "--values", path)
    with scratch() as at:
        must("helm", "package", chart.CHART, "--destination", at)
        [package] = at.glob("*.tgz")
        for name in chart.CASES:
            code, out, err = chart.template(chart.case(name), package)
            if code or out != chart.render(chart.case(name)):
                raise Fault(f"the packed chart renders {name} otherwise than its sources do: {err}")


def manifests_fit_kubernetes():
    custom = yaml.safe_load((ROOT / "scripts/deploy/custom-resources.yaml").read_text())
    for name, manifests in chart.every_case():
        for one in manifests:
            where = f"{name}: {one['kind']} {one['metadata']['name']}"
            try:
                if known := custom.get(f"{one['apiVersion']}/{one['kind']}"):
                    jsonschema.validate(one["spec"], known)
                    continue
                for version in KUBERNETES:
                    kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                raise Fault(f"{where}: Kubernetes {version} knows no {one['apiVersion']} of that kind") from None
            except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
                raise Fault(f"{where}: {error.message} at {'.'.join(map(str, error.path))}") from None


CHECKS = [
    checkov_finds_nothing,
    hadolint_finds_nothing,
    compose_is_right,
    the_chart_is_linted_and_packed_whole,
    manifests_fit_kubernetes,
]
