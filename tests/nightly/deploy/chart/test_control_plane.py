"""The chart in a real API server and its controllers; no container runs, and metrics come from a stand-in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from tests.nightly.deploy.chart.generated_values import releases
from tests.nightly.deploy.chart.release import of_kind
from tests.servers.control_plane import ControlPlane, MetricsStub, Refused, control_plane, ready
from tests.worlds.waiting import eventually, until
from tools.chart import CHART, VALUES, Chart, read_values

pytestmark = pytest.mark.soak
NEW = ("--set", "images.server=shop/server:2", "--set", "images.jobs=shop/jobs:2")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("kubernetes")) as plane:
        plane.add_namespace("judged")
        yield plane


@pytest.fixture
def namespace(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.originalname.replace("_", "-")[:60]
    plane.add_namespace(name)
    yield name
    plane.ask("DELETE", f"/api/v1/namespaces/{name}")


def install(plane: ControlPlane, namespace: str, *words: str, values: str = "small") -> None:
    first = ("--set", "images.server=shop/server:1", "--set", "images.jobs=shop/jobs:1")
    plane.helm("install", "shop", CHART, "-n", namespace, "-f", CHART / "values" / f"{values}.yaml", *first, *words)
    until(lambda: servers(plane, namespace))


def upgrade(plane: ControlPlane, namespace: str, *words: str) -> None:
    plane.helm("upgrade", "shop", CHART, "-n", namespace, "--reset-then-reuse-values", *words)


def servers(plane: ControlPlane, namespace: str) -> list[str]:
    return sorted(ready(plane, namespace, "server").values())


def kinds(plane: ControlPlane, namespace: str) -> set[str]:
    """Return the kinds of which the namespace has objects of the release."""
    paths = {
        "apps/v1": "deployments",
        "batch/v1": "jobs",
        "networking.k8s.io/v1": "networkpolicies",
        "policy/v1": "poddisruptionbudgets",
        "autoscaling/v2": "horizontalpodautoscalers",
        "keda.sh/v1alpha1": "scaledobjects",
        "monitoring.coreos.com/v1": "servicemonitors",
    }
    return {
        kind
        for group, kind in paths.items()
        if plane.ask("GET", f"/apis/{group}/namespaces/{namespace}/{kind}")["items"]
    }


@pytest.mark.parametrize("values", VALUES)
def test_the_api_server_accepts_each_values_file_without_a_warning(
    plane: ControlPlane, chart: Chart, values: str
) -> None:
    objects = chart.render(read_values(values), "shop", "judged")
    assert [plane.create(body, dry=True)["kind"] for body in objects] == [body["kind"] for body in objects]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("replica", 3, "unknown field"),
        ("hostNetwork", True, "violate PodSecurity"),
        ("restartPolicy", "No", "Unsupported"),
    ],
)
def test_the_api_server_refuses_what_is_wrong(
    plane: ControlPlane, chart: Chart, field: str, value: object, message: str
) -> None:
    body = of_kind(chart.render({}, "shop", "judged"), "Deployment")[0]
    body["spec"]["template"]["spec"][field] = value
    with pytest.raises(Refused, match=message):
        plane.create(body, dry=True)


@settings(max_examples=40, phases=[Phase.generate])
@given(drawn=releases())
def test_the_api_server_accepts_random_values_that_the_chart_accepts(
    plane: ControlPlane, chart: Chart, drawn: tuple[dict[str, Any], str, str]
) -> None:
    values, name, _ = drawn
    for body in chart.render(values, name, "judged"):
        plane.create(body, dry=True)


def test_a_release_is_installed_changed_brought_back_and_removed(plane: ControlPlane, namespace: str) -> None:
    install(plane, namespace, values="high-availability")
    until(lambda: servers(plane, namespace) == ["shop/server:1"] * 3)
    assert "horizontalpodautoscalers" in kinds(plane, namespace)
    upgrade(plane, namespace, *NEW)
    until(lambda: servers(plane, namespace) == ["shop/server:2"] * 3)
    plane.helm("rollback", "shop", "1", "-n", namespace)
    until(lambda: servers(plane, namespace) == ["shop/server:1"] * 3)
    plane.helm("uninstall", "shop", "-n", namespace)
    until(lambda: not servers(plane, namespace))
    assert kinds(plane, namespace) == {"jobs"}  # of hooks, which Helm leaves


def test_new_servers_that_are_never_ready_replace_none(plane: ControlPlane, namespace: str) -> None:
    install(plane, namespace, "--set", "server.replicas=2")
    until(lambda: servers(plane, namespace) == ["shop/server:1"] * 2)
    with pytest.raises(Refused, match=r"timed out|deadline exceeded|not ready"):
        upgrade(plane, namespace, "--set", "images.server=shop/server:broken", "--wait", "--timeout", "8s")
    assert servers(plane, namespace) == ["shop/server:1"] * 2
    plane.helm("rollback", "shop", "1", "-n", namespace, "--wait")
    assert servers(plane, namespace) == ["shop/server:1"] * 2


def test_a_refused_apply_replaces_nothing(plane: ControlPlane, namespace: str) -> None:
    install(plane, namespace)
    with pytest.raises(Refused, match="pre-upgrade hooks failed"):
        upgrade(plane, namespace, *NEW[:2], "--set", "images.jobs=shop/jobs:refused")
    assert servers(plane, namespace) == ["shop/server:1"]
    upgrade(plane, namespace, *NEW)
    until(lambda: servers(plane, namespace) == ["shop/server:2"])


def test_a_drain_of_nodes_leaves_servers(plane: ControlPlane, namespace: str) -> None:
    install(plane, namespace, "--set", "server.replicas=2")
    until(lambda: servers(plane, namespace) == ["shop/server:1"] * 2)
    budget = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/shop-server"
    until(lambda: plane.ask("GET", budget)["status"].get("disruptionsAllowed") == 1)
    replies = []
    for pod in ready(plane, namespace, "server"):
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        try:
            plane.ask("POST", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", eviction)
            replies.append("evicted")
        except Refused as problem:
            replies.append(str(problem)[:3])
    assert replies == ["evicted", "429"]
    until(lambda: servers(plane, namespace) == ["shop/server:1"] * 2)


def test_the_autoscaler_follows_our_metric_and_the_cpu(plane: ControlPlane, namespace: str) -> None:
    metrics = MetricsStub(plane)
    metrics.start()
    scaler = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/shop-server"

    def look() -> tuple[int, object]:
        return len(servers(plane, namespace)), plane.ask("GET", scaler).get("status")

    try:
        until(metrics.is_available)
        install(plane, namespace, values="high-availability")
        few = (300, 30)  # 3 servers are the least, and 12 the most
        for cpu, requests, wanted in (
            (*few, 3),
            (300, 300, 5),
            (300, 3_000, 12),
            (*few, 3),
            (18_000, 30, 12),
            (*few, 3),
        ):
            metrics.cpu, metrics.requests = cpu, requests
            eventually(look, lambda seen, wanted=wanted: seen[0] == wanted)  # type: ignore[misc]
            time.sleep(3)  # more looks of the autoscaler
            assert len(servers(plane, namespace)) == wanted
    finally:
        metrics.stop()
