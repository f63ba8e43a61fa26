"""What is in deploy/ fits the API, itself and the agent: manifests, chart, image, dashboard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from gotemplate import Renderer, parse
from kubernetes.client import models
from prometheus_client import REGISTRY, CollectorRegistry
from pydantic import ValidationError

from polyplane.cluster.sources.kubernetes.resources import resources
from polyplane.config import load
from polyplane.hookspecs import BACKENDS, OBSERVERS
from polyplane.observers.metrics import MetricsObserver
from polyplane.plugins import dialects, list_plugins
from polyplane.serve import parse_listen

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "chart"
#: The oldest Kubernetes that the manifests are written for.
OLDEST = "1.30"
#: Kinds of the Prometheus operator, for which there are no models.
FOREIGN = {"ServiceMonitor"}

Raw = dict[str, Any]


def documents(text: str) -> list[Raw]:
    return [document for document in yaml.safe_load_all(text) if document]


def base() -> list[Raw]:
    kustomization = yaml.safe_load((DEPLOY / "base/kustomization.yaml").read_text())
    return [document for name in kustomization["resources"] for document in documents((DEPLOY / "base" / name).read_text())]


def values(**changes: Any) -> Raw:
    return yaml.safe_load((CHART / "values.yaml").read_text()) | changes  # type: ignore[no-any-return]


def chart(given: Raw) -> list[Raw]:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    root = {
        "Values": given,
        "Release": {"Name": "polyplane", "Namespace": "polyplane-system", "Service": "Helm"},
        "Chart": {"AppVersion": about["appVersion"], "Name": about["name"]},
    }
    _, definitions = parse((CHART / "templates/_helpers.tpl").read_text())
    made: list[Raw] = []
    for path in sorted((CHART / "templates").glob("*.yaml")):
        nodes, _ = parse(path.read_text())
        made += documents(Renderer(definitions, root).render(nodes, {}))
    return made


def one(objects: list[Raw], kind: str) -> Raw:
    (found,) = [document for document in objects if document["kind"] == kind]
    return found


# --- the API's own types


def check(document: Raw) -> None:
    if document["kind"] in FOREIGN:
        assert document["apiVersion"] == "monitoring.coreos.com/v1"
        return
    version = document["apiVersion"].rpartition("/")[2]
    model = getattr(models, f"{version.capitalize()}{document['kind']}")
    model.model_validate(document)  # forbids fields that the API does not have
    for served in (OLDEST, kubernetes_validate.latest_version()):
        kubernetes_validate.validate(document, served, strict=True)  # the schemas of servers, which know what must be there


def test_the_check_finds_faults() -> None:
    broken = one(base(), "DaemonSet")
    broken["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(ValidationError, match="readOnlyRootFileSystem"):
        check(broken)


def test_the_check_finds_what_no_server_serves() -> None:
    broken = one(base(), "DaemonSet")
    broken["apiVersion"] = "extensions/v1"
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check(broken)


def test_manifests_fit_the_api() -> None:
    components = [documents((DEPLOY / "components" / name).read_text()) for name in ("monitoring/monitoring.yaml", "status/rbac.yaml")]
    for document in [*base(), *chain(*components)]:
        check(document)


@pytest.mark.parametrize("backend", ["nftables", "iptables", "ebpf", "ovs"])
def test_the_chart_fits_the_api(backend: str) -> None:
    given = values(
        backend=backend,
        metrics={"serviceMonitor": True, "interval": "15s"},
        backendOptions={"table": "x"},
        sourceOptions={"page_size": 100},
        status=True,
        observers=["opentelemetry"],
        env=[{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}],
    )
    for document in chart(given):
        check(document)
    agent = one(chart(given), "DaemonSet")["spec"]["template"]["spec"]
    mounts = {mount["name"] for mount in agent["containers"][0]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in agent["volumes"]}


def test_values_fit_their_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.validate(values(), schema)
    with pytest.raises(jsonschema.ValidationError, match="yes"):
        jsonschema.validate(values(status="yes"), schema)
    assert set(values()) <= set(schema["properties"])
    assert set(schema["properties"]) - set(values()) == {"global"}


# --- the chart and the manifests are the same


def without_labels(document: Any) -> Any:
    if isinstance(document, Mapping):
        skipped = {"namespace", "checksum/config", "imagePullPolicy", "image"}
        return {key: without_labels(value) for key, value in document.items() if key not in skipped and key != "labels"}
    return [without_labels(item) for item in document] if isinstance(document, list) else document


@pytest.mark.parametrize("kind", ["DaemonSet", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"])
def test_the_chart_makes_what_the_manifests_are(kind: str) -> None:
    assert without_labels(one(chart(values()), kind)) == without_labels(one(base(), kind))


def test_the_monitoring_component_is_the_charts() -> None:
    made = chart(values(metrics={"serviceMonitor": True, "interval": "30s"}))
    for document in documents((DEPLOY / "components/monitoring/monitoring.yaml").read_text()):
        assert without_labels(one(made, document["kind"])) == without_labels(document)
    assert not [document for document in chart(values()) if document["kind"] in {"Service", "ServiceMonitor"}]


# --- they fit the agent


@pytest.mark.parametrize("way", ["base", "chart", "chart with options"])
def test_the_agent_understands_its_settings(way: str, tmp_path: Path) -> None:
    if way == "base":
        text = (DEPLOY / "base/polyplane.toml").read_text()
    else:
        options = {"sourceOptions": {"page_size": 100}, "backendOptions": {"table": "mine"}} if "options" in way else {}
        text = one(chart(values(**options)), "ConfigMap")["data"]["polyplane.toml"]
    path = tmp_path / "polyplane.toml"
    path.write_text(text)
    config = load({}, path).config
    assert (config.source, config.backend, parse_listen(config.listen)) == ("kubernetes", "nftables", ("", 9469))
    assert set(config.observers) <= {info.name for info in list_plugins(OBSERVERS)}
    if "options" in way:
        assert (config.source_options["kubernetes"], config.backend_options["nftables"]) == ({"page_size": 100}, {"table": "mine"})


STATUS = {f"{kind}/status" for kind in ("clusternetworkpolicies", "adminnetworkpolicies", "baselineadminnetworkpolicies")}


def test_status_is_written_only_if_that_is_wanted(tmp_path: Path) -> None:
    for on in (False, True):
        made = chart(values(status=on))
        patched = [rule for rule in one(made, "ClusterRole")["rules"] if "patch" in rule["verbs"]]
        assert [(rule["apiGroups"], set(rule["resources"]), rule["verbs"]) for rule in patched] == (
            [(["policy.networking.k8s.io"], STATUS, ["patch"])] if on else []
        )
        path = tmp_path / "polyplane.toml"
        path.write_text(one(made, "ConfigMap")["data"]["polyplane.toml"])
        assert ("kubernetes-status" in load({}, path).config.observers) is on
    component = documents((DEPLOY / "components/status/rbac.yaml").read_text())
    (rule,) = one(component, "ClusterRole")["rules"]
    assert (rule["apiGroups"], set(rule["resources"]), rule["verbs"]) == (["policy.networking.k8s.io"], STATUS, ["patch"])
    patch = yaml.safe_load((DEPLOY / "components/status/observers.yaml").read_text())
    (variable,) = patch["spec"]["template"]["spec"]["containers"][0]["env"]
    (known,) = [tomllib.loads((DEPLOY / "base/polyplane.toml").read_text())["agent"]["observers"]]
    assert variable == {"name": "POLYPLANE_OBSERVERS", "value": ",".join([*known, "kubernetes-status"])}


# --- the tools of others, where they are installed


@pytest.mark.needs("kubectl")
def test_kustomize_builds_it(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    folder = tmp_path / "site"
    folder.mkdir()
    components = ["../deploy/components/monitoring", "../deploy/components/status"]
    (folder / "kustomization.yaml").write_text(json.dumps({"resources": ["../deploy/base"], "components": components}))
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    if "unknown field" in done.stderr or "json: unknown" in done.stderr:
        pytest.skip("kubectl is too old for components: it needs 1.21")
    assert done.returncode == 0, done.stderr
    made = documents(done.stdout)
    for document in made:
        check(document)
    (agent,) = one(made, "DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert {variable["name"] for variable in agent["env"]} == {"POLYPLANE_NODE", "POLYPLANE_OBSERVERS"}
    assert agent["image"].endswith(f":{tomllib.loads((ROOT / 'core/pyproject.toml').read_text())['project']['version']}")
    (name,) = [document["metadata"]["name"] for document in made if document["kind"] == "ConfigMap"]
    volumes = one(made, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": name}} in volumes


@pytest.mark.needs("helm")
def test_helm_agrees_with_our_renderer() -> None:
    subprocess.run(["helm", "lint", "--strict", CHART], check=True)
    text = subprocess.run(
        ["helm", "template", "polyplane", CHART, "--namespace", "polyplane-system"], check=True, capture_output=True, text=True
    ).stdout
    by_name = lambda document: (document["kind"], document["metadata"]["name"])  # noqa: E731
    assert sorted(map(without_labels, documents(text)), key=by_name) == sorted(map(without_labels, chart(values())), key=by_name)


@pytest.mark.parametrize("objects", [base(), chart(values())], ids=["base", "chart"])
def test_least_privilege(objects: list[Raw]) -> None:
    rules = one(objects, "ClusterRole")["rules"]
    allowed = {(group, name) for rule in rules for group in rule["apiGroups"] for name in rule["resources"] if "watch" in rule["verbs"]}
    needed = {
        (
            one_.api_version.rpartition("/")[0],
            f"{one_.kind.lower().removesuffix('y')}ies" if one_.kind.endswith("y") else f"{one_.kind.lower()}s",
        )
        for one_ in resources(dialects())
    }
    assert allowed == needed
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch", "create"}
    assert [rule["resources"] for rule in rules if "create" in rule["verbs"]] == [["events"]]
    pod = one(objects, "DaemonSet")["spec"]["template"]["spec"]
    security = pod["containers"][0]["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert (security["privileged"], security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, False, True)
    assert "hostPID" not in pod
    assert pod["priorityClassName"] == "system-node-critical"


def test_every_backend_of_the_repository_is_in_the_chart() -> None:
    assert {info.name for info in list_plugins(BACKENDS)} - {"memory", "file"} <= set(values()["backends"])


def test_versions_are_one() -> None:
    version = tomllib.loads((ROOT / "core/pyproject.toml").read_text())["project"]["version"]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    kustomization = yaml.safe_load((DEPLOY / "base/kustomization.yaml").read_text())
    assert {about["version"], about["appVersion"], kustomization["images"][0]["newTag"]} == {version}


def test_the_image_is_made_of_what_is_there() -> None:
    text = (DEPLOY / "container/Dockerfile").read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert (ROOT / source).is_dir()
    (default,) = re.findall(r'ARG BACKENDS="(.*)"', text)
    for backend in default.split():
        assert (ROOT / "backends" / backend / "pyproject.toml").is_file()


def test_the_image_installs_what_each_backend_takes_from_the_system() -> None:
    text = (DEPLOY / "container/Dockerfile").read_text()
    packages = dict(re.findall(r"(\w+)\) echo ([\w ./-]+?) ;;", text))
    assert {path.parent.name for path in (ROOT / "backends").glob("*/pyproject.toml")} <= packages.keys()
    assert {"iptables", "ipset"} <= set(packages["iptables"].split())


# --- the dashboard


def metric_names() -> set[str]:
    registry = CollectorRegistry()
    MetricsObserver({}, registry)
    names = set()
    for family in [*registry.collect(), *REGISTRY.collect()]:
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def queries() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana/polyplane.json").read_text())
    variables = [one_["query"]["query"] for one_ in dashboard["templating"]["list"] if isinstance(one_["query"], dict)]
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())] + variables


def test_every_query_names_metrics_that_exist() -> None:
    names = metric_names()
    asked = set()
    for query in queries():
        bare = re.sub(r'"[^"]*"', "", query)
        found = set(re.findall(r"\b(?:polyplane|policy_enforcement|process|python)_\w+", bare))
        assert found, query
        assert found <= names, f"{found - names} in {query}"
        asked |= found
    ours = {name for name in names if name.startswith(("polyplane_", "policy_enforcement_")) and not name.endswith(("_sum", "_count"))}
    unseen = {name for name in ours - asked if "last_applied" not in name and "source_events" not in name}
    assert not unseen, "the dashboard shows everything but these"


def test_panels_do_not_overlap() -> None:
    dashboard = json.loads((DEPLOY / "grafana/polyplane.json").read_text())
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not own & cells, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
