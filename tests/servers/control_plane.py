"""Kubernetes without nodes: etcd, API server and controllers that are real, and stand-ins for kubelet and metrics."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.servers.certificates import Authority
from tests.servers.node import _KILL_WITH_PARENT
from tests.systems import note_system
from tests.worlds.ports import free_ports
from tests.worlds.waiting import until

Object = dict[str, Any]
_FOLDER = Path(f"{sys.prefix}-kubernetes")
_TOKEN = "administrator"  # noqa: S105 - of a server that lives for a test
_NODE = "node"
_CONTROLLERS = (
    "cronjob-controller,deployment-controller,disruption-controller,garbage-collector-controller,"
    "horizontal-pod-autoscaler-controller,job-controller,namespace-controller,replicaset-controller,"
    "serviceaccount-controller"
)
# An autoscaler that looks each second, and does not wait for what a pod does when it begins.
_AUTOSCALER = {
    "sync-period": "1s",
    "cpu-initialization-period": "0s",
    "initial-readiness-delay": "0s",
    "downscale-stabilization": "1s",
}


class Refused(Exception):  # noqa: N818 - the word of the field
    """The API server or Helm refused; the message is theirs."""


class ControlPlane:
    """The processes, and an administrator's requests to their API server."""

    def __init__(self, folder: Path) -> None:
        if not (_FOLDER / "kube").exists():
            pytest.skip("no control plane of Kubernetes: `make setup-kubernetes` builds it with Go")
        note_system("Kubernetes", _FOLDER / "kube", "apiserver", "--version")
        note_system("Helm", _FOLDER / "kube", "helm", "version")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.authority = Authority(folder / "authority")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port, self._etcd, self._peers, self._metrics = free_ports(4)
        self._client = httpx2.Client()

    def start(self) -> None:
        """Start all processes, and add what the operators of Prometheus and KEDA define."""
        self._run(
            "etcd",
            data_dir=self.folder / "etcd",
            listen_client_urls=f"http://127.0.0.1:{self._etcd}",
            advertise_client_urls=f"http://127.0.0.1:{self._etcd}",
            listen_peer_urls=f"http://127.0.0.1:{self._peers}",
            initial_advertise_peer_urls=f"http://127.0.0.1:{self._peers}",
            initial_cluster=f"default=http://127.0.0.1:{self._peers}",
            unsafe_no_fsync="true",
        )
        public, private = self.authority.issue("accounts")
        proxy, proxy_key = self.authority.issue("proxy")
        (self.folder / "tokens").write_text(f"{_TOKEN},administrator,1,system:masters\n", encoding="utf-8")
        self._run(
            "apiserver",
            etcd_servers=f"http://127.0.0.1:{self._etcd}",
            bind_address="127.0.0.1",
            secure_port=self._port,
            cert_dir=self.folder,
            endpoint_reconciler_type="none",
            service_cluster_ip_range="10.0.0.0/24",
            service_account_issuer="https://kubernetes.default.svc",
            service_account_key_file=public,
            service_account_signing_key_file=private,
            token_auth_file=self.folder / "tokens",
            authorization_mode="RBAC",
            requestheader_client_ca_file=self.authority.path,
            requestheader_username_headers="X-Remote-User",
            requestheader_group_headers="X-Remote-Group",
            requestheader_extra_headers_prefix="X-Remote-Extra-",
            proxy_client_cert_file=proxy,
            proxy_client_key_file=proxy_key,
        )
        certificate = self.folder / "apiserver.crt"
        until(lambda: self._is_up(certificate))
        self._client = httpx2.Client(
            base_url=f"https://127.0.0.1:{self._port}",
            headers={"Authorization": f"Bearer {_TOKEN}"},
            verify=ssl.create_default_context(cafile=str(certificate)),
            timeout=60,
            trust_env=False,
        )
        until(self._is_ready)
        self._write_access(self.folder / "access.yaml")
        self._run(
            "controllers",
            kubeconfig=self.folder / "access.yaml",
            leader_elect="false",
            bind_address="127.0.0.1",
            secure_port=self._metrics,
            cert_dir=self.folder / "controllers",
            service_account_private_key_file=private,
            controllers=_CONTROLLERS,
            **{f"horizontal_pod_autoscaler_{name.replace('-', '_')}": value for name, value in _AUTOSCALER.items()},
        )
        for path in sorted(_FOLDER.glob("*.yaml")):
            self.create(yaml.safe_load(path.read_text(encoding="utf-8")))
        until(lambda: all(self._is_served(group) for group in ("monitoring.coreos.com/v1", "keda.sh/v1alpha1")))

    def stop(self) -> None:
        """End all processes."""
        self._client.close()
        for process in reversed(self._processes):
            process.kill()
            process.wait(60)

    def ask(self, method: str, path: str, body: object = None, *, merge: bool = False) -> Object:
        """Return the JSON of a reply; ``merge``: the body is a merge patch.

        Raises:
            Refused: with the message of the API server, or with its warning: nothing of the chart may deserve one.
        """
        kind = "application/merge-patch+json" if merge else "application/json"
        content = None if body is None else json.dumps(body)
        reply = self._client.request(method, path, content=content, headers={"Content-Type": kind})
        if reply.is_error or "Warning" in reply.headers:
            raise Refused(f"{reply.status_code}: {reply.headers.get('Warning', '')} {reply.text}")
        found: Object = reply.json()
        return found

    def create(self, body: Object, *, dry: bool = False) -> Object:
        """Create an object, with unknown and repeated fields refused; ``dry``: only let it be judged."""
        query = "fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        return self.ask("POST", f"{path_of(body)}?{query}", body)

    def add_namespace(self, name: str) -> None:
        """Create a namespace whose pods have to fit the policy ``restricted``."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    def helm(self, *words: str | Path) -> str:
        """Run Helm, and return what it prints.

        Raises:
            Refused: Helm failed.
        """
        command = [_FOLDER / "kube", "helm", *words, "--kubeconfig", self.folder / "access.yaml"]
        found = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=120, env=self._environment()
        )
        if found.returncode:
            raise Refused(found.stderr)
        return found.stdout

    def _environment(self) -> dict[str, str]:
        homes = {f"HELM_{name}_HOME": str(self.folder / "helm") for name in ("CACHE", "CONFIG", "DATA")}
        return dict(os.environ) | homes

    def _run(self, part: str, **options: object) -> None:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = [sys.executable, "-I", "-S", "-c", _KILL_WITH_PARENT, str(_FOLDER / "kube"), part, *words]
        with (self.folder / f"{part}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes.append(process)

    def _is_up(self, certificate: Path) -> bool:
        assert all(process.poll() is None for process in self._processes), self.folder
        return certificate.exists()

    def _is_ready(self) -> bool:
        try:
            return self._client.get("/readyz").text == "ok"
        except httpx2.TransportError:
            return False

    def _is_served(self, group: str) -> bool:
        return self._client.get(f"/apis/{group}").is_success

    def _write_access(self, path: Path) -> None:
        cluster = {
            "server": f"https://127.0.0.1:{self._port}",
            "certificate-authority": str(self.folder / "apiserver.crt"),
        }
        access = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "administrator", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "administrator"}}],
            "current-context": "tests",
        }
        path.write_text(yaml.safe_dump(access), encoding="utf-8")
        path.chmod(0o600)


def path_of(body: Object) -> str:
    """Return the path of all objects of a kind, in the namespace of this one."""
    version, kind = body["apiVersion"], body["kind"].lower()
    root = "/api/v1" if version == "v1" else f"/apis/{version}"
    namespace = body["metadata"].get("namespace")
    folder = f"{root}/namespaces/{namespace}" if namespace else root
    return f"{folder}/{kind.removesuffix('y')}ies" if kind.endswith("y") else f"{folder}/{kind}s"


class KubeletStub(threading.Thread):
    """Stands in for scheduler and kubelets: says that pods are bound, run, are ready and end. No container runs.

    The tag of an image decides: pods of ``broken`` are never ready, those of ``refused`` fail.
    """

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(daemon=True)
        self._plane = plane
        self._end = threading.Event()

    def run(self) -> None:
        """Look at all pods ten times a second."""
        while not self._end.wait(0.1):
            for pod in self._plane.ask("GET", "/api/v1/pods")["items"]:
                try:
                    self._act(pod)
                except Refused as problem:  # the pod changed or went since it was read, or its namespace goes
                    if not str(problem).startswith(("404", "409")) and "NamespaceTerminating" not in str(problem):
                        raise

    def stop(self) -> None:
        """Stop, with all pods as they are."""
        self._end.set()
        self.join(60)

    def _act(self, pod: Object) -> None:
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        if "deletionTimestamp" in pod["metadata"]:
            self._plane.ask("DELETE", path, {"gracePeriodSeconds": 0})
        elif "nodeName" not in pod["spec"]:
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}}
            target = {"apiVersion": "v1", "kind": "Node", "name": _NODE}
            self._plane.ask("POST", f"{path}/binding", binding | {"target": target})
        elif pod["status"]["phase"] == "Pending":
            self._plane.ask("PATCH", f"{path}/status", {"status": _status(pod)}, merge=True)


def _status(pod: Object) -> Object:
    image = pod["spec"]["containers"][0]["image"]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if pod["spec"]["restartPolicy"] == "Never":
        return {"phase": "Failed" if image.endswith(":refused") else "Succeeded"}
    ready = str(not image.endswith(":broken"))
    conditions = [{"type": name, "status": ready, "lastTransitionTime": now} for name in ("ContainersReady", "Ready")]
    return {"phase": "Running", "startTime": now, "conditions": conditions}


class MetricsStub:
    """Stands in for metrics-server and prometheus-adapter: tells the CPU and the requests in flight that a test sets.

    Args:
        cpu: of all servers of a namespace, in thousandths of a core; each has its share.
        requests: of all servers, as ``skewless_requests_in_flight``.
    """

    RESOURCES, CUSTOM = "metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1beta2"

    def __init__(self, plane: ControlPlane) -> None:
        self.cpu = self.requests = 0
        self._plane = plane
        certificate, key = plane.authority.issue("metrics", dns=["metrics.kube-system.svc"])
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Register both groups with the API server, which asks this process for them."""
        self._thread.start()
        port = self._server.server_address[1]
        name = {"name": "metrics", "namespace": "kube-system"}
        spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
        self._plane.create({"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": spec})
        for served in (self.RESOURCES, self.CUSTOM):
            group, version = served.split("/")
            about = {"service": name | {"port": port}, "insecureSkipTLSVerify": True, "group": group}
            about |= {"version": version, "groupPriorityMinimum": 100, "versionPriority": 100}
            metadata = {"name": f"{version}.{group}"}
            body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": metadata}
            self._plane.create(body | {"spec": about})

    def is_available(self) -> bool:
        """Return whether the API server has both groups."""
        services = self._plane.ask("GET", "/apis/apiregistration.k8s.io/v1/apiservices")["items"]
        ours = [body["status"] for body in services if "service" in body["spec"]]
        return len(ours) == 2 and all(status.get("conditions", [{}])[0].get("status") == "True" for status in ours)

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    def reply(self, path: str) -> Object:
        """Return the JSON for a path: what a group has, or the values of the servers' pods of a namespace."""
        _, group, version, *rest = path.partition("?")[0].strip("/").split("/")
        served = f"{group}/{version}"
        if not rest:
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": served, "resources": _kinds(served)}
        pods = self._plane.ask("GET", f"/api/v1/namespaces/{rest[1]}/pods?labelSelector={_SERVERS}")["items"]
        kind = "PodMetricsList" if served == self.RESOURCES else "MetricValueList"
        return {"kind": kind, "apiVersion": served, "items": [self._item(served, pod, len(pods)) for pod in pods]}

    def _item(self, served: str, pod: Object, pods: int) -> Object:
        place = {name: pod["metadata"][name] for name in ("name", "namespace")}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if served == self.RESOURCES:
            usage = {
                "name": pod["spec"]["containers"][0]["name"],
                "usage": {"cpu": f"{self.cpu // pods}m", "memory": "1Gi"},
            }
            return {"metadata": place, "timestamp": now, "window": "10s", "containers": [usage]}
        about = {"kind": "Pod", "apiVersion": "v1"} | place
        metric = {"name": "skewless_requests_in_flight"}
        return {
            "describedObject": about,
            "metric": metric,
            "timestamp": now,
            "value": f"{self.requests * 1000 // pods}m",
        }


_SERVERS = "app.kubernetes.io/component=server"


def _kinds(served: str) -> list[Object]:
    if served == MetricsStub.RESOURCES:
        return [
            {"name": "pods", "namespaced": True, "kind": "PodMetrics", "singularName": "", "verbs": ["get", "list"]}
        ]
    name = "pods/skewless_requests_in_flight"
    return [{"name": name, "namespaced": True, "kind": "MetricValueList", "singularName": "", "verbs": ["get"]}]


def _handler(stub: MetricsStub) -> type[BaseHTTPRequestHandler]:
    class MetricsHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known = re.match(r"/apis/[^/?]+/[^/?]+", self.path) is not None
            body = json.dumps(stub.reply(self.path) if known else {"kind": "Status", "code": 404}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its parent names it
            """Say nothing."""

    return MetricsHandler


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Run a control plane with a node, and the stand-in of its kubelet, for the length of a block."""
    plane = ControlPlane(folder)
    kubelet = KubeletStub(plane)
    try:
        plane.start()
        plane.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": _NODE}})
        kubelet.start()
        yield plane
        kubelet.stop()
    finally:
        plane.stop()


def ready(plane: ControlPlane, namespace: str, component: str) -> Mapping[str, str]:
    """Return the ready pods of a component, with their images."""
    query = f"labelSelector=app.kubernetes.io/component={component}"
    pods = plane.ask("GET", f"/api/v1/namespaces/{namespace}/pods?{query}")["items"]
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in pods if _is_ready(pod)}


def _is_ready(pod: Object) -> bool:
    return any((about["type"], about["status"]) == ("Ready", "True") for about in pod["status"].get("conditions", []))
