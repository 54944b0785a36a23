"""The engine of a Ray cluster, by default one of this machine that ends with this process."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Generator, Sequence

# Before the import, which reads them.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_py_gcs_connect_timeout_s", "10")  # of one attempt; Ray's own is 30 s
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray._private import ray_constants
from ray.exceptions import RayError, RayTaskError

from skewless.contract.errors import StoreError
from skewless.contract.settings import Settings
from skewless.infra.reads.engines.task import Task, TaskResult, execute, lost_error, read_outcome

_ATTEMPTS = 5
_LOCAL = {"gcs_rpc_server_reconnect_timeout_s": 5}  # when this process was killed, its agents end soon after
_ATTEMPTS_TO_CONNECT = "RAY_gcs_server_port_wait_time_s"  # Ray's own are 20: minutes if nothing answers
_END_S = 30.0  # a killed worker ends within milliseconds, a lost node within its heartbeats


def open_engine(settings: Settings) -> RayExecutor:
    """Return the engine of the cluster of the settings.

    Raises:
        StoreError: the cluster cannot be reached.
    """
    return RayExecutor(settings.engine_address, settings.engine_workers)


class RayExecutor:
    """Runs tasks as Ray tasks of one CPU; see ``Executor`` for the contract.

    Args:
        address: of the cluster; None: start one on loopback. A program that is connected already stays so.
        workers: number of tasks at once; 0: one per CPU of the cluster.
    """

    name = "ray"

    def __init__(self, address: str | None, workers: int = 0) -> None:
        self._is_owner = not ray.is_initialized()
        if self._is_owner:
            connect(address, workers)
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, tasks: Sequence[Task]) -> Generator[TaskResult]:
        """Yield the result of each task, in the order in which they finish."""
        # Our own attempts: Ray repeats a task without limit if the machine is out of memory.
        remote = ray.remote(num_cpus=1, max_retries=0)(execute)
        waiting, attempts = deque(tasks), Counter[str]()
        running: dict[ray.ObjectRef[str], Task] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    task = waiting.popleft()
                    running[remote.remote(task.to_json())] = task
                (finished,), _ = ray.wait(list(running), num_returns=1)
                task = running.pop(finished)
                try:
                    outcome = ray.get(finished)
                except RayTaskError as error:  # of a worker that lives: ``execute`` itself never raises
                    problem = f"cannot be read by a worker: {str(error).splitlines()[-1]}"
                    raise StoreError(f"task {task.name}", problem, fix="install this release on each node") from error
                except RayError as error:
                    attempts[task.name] += 1
                    if attempts[task.name] == _ATTEMPTS:
                        raise lost_error(task, _ATTEMPTS) from error
                    waiting.append(task)
                else:
                    yield read_outcome(task, outcome)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=_END_S)

    def close(self) -> None:
        """End the workers, and a cluster that this executor has started."""
        if self._is_owner:
            ray.shutdown()


def connect(address: str | None, workers: int = 0) -> None:
    """Connect this process to a cluster.

    Args:
        address: of the cluster; None: start one on loopback.
        workers: CPUs of a cluster that is started; 0: as many as this process may use.

    Raises:
        StoreError: the cluster cannot be reached.
    """
    options: dict[str, object] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        cpus = workers or len(os.sched_getaffinity(0))
        options |= {"num_cpus": cpus, "include_dashboard": False, "_system_config": _LOCAL}
        # As on macOS: all of Ray's ports are on loopback then, which no argument of `init` can say.
        ray_constants.ENABLE_RAY_CLUSTER = False
    attempts = os.environ.get(_ATTEMPTS_TO_CONNECT)
    if address is not None:
        os.environ.setdefault(_ATTEMPTS_TO_CONNECT, "1")
    try:
        ray.init(address=address or "local", **options)
    except Exception as error:  # Ray also raises plain ones
        raise _connection_error(address, error) from error
    finally:
        if attempts is None:
            os.environ.pop(_ATTEMPTS_TO_CONNECT, None)


def _connection_error(address: str | None, error: Exception) -> StoreError:
    thing, reason = f"Ray cluster {address or 'of this machine'}", " ".join(str(error).split())
    if reason.startswith("Version mismatch"):
        fix = "install the cluster's versions of Ray and Python here, or these there"
        return StoreError(thing, f"has other versions: {reason}", fix=fix)
    if address is None:
        return StoreError(thing, f"cannot be started: {reason}", fix="read the logs in /tmp/ray/session_latest/logs")
    return StoreError(thing, f"cannot be reached: {reason}", fix="start it, or correct the setting 'engine_address'")
