"""The traffic policies that are in force in one server."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from skewless.contract.clock import Clock
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.rollout.counts import PolicyCounts, counts_folder, delete_old_counts, write_counts
from skewless.infra.rollout.traffic import Traffic, versions_of
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.routing import Routing

_SECONDS = 2.0
_log = structlog.get_logger()


class TrafficPolicies:
    """Holds a routing for each model that is under a policy.

    A policy is in force only while its champion holds the alias: whoever moves the alias ends it, so that a rollout
    killed between moving the alias and writing its last policy leaves all traffic with the alias's holder. In the
    phase ``champion`` without shadows there is nothing to route, and nothing is.

    Args:
        packages: folder of all models' packages.
    """

    def __init__(self, packages: Path, metrics: Metrics) -> None:
        self._traffic = Traffic(packages)
        self._metrics = metrics
        self._routings: dict[str, Routing] = {}
        self._seen: dict[str, tuple[int | None, str]] = {}

    def get(self, name: str) -> Routing | None:
        """Return how the requests to a model are shared out; None: its champion answers all."""
        return self._routings.get(name)

    def versions(self, name: str) -> frozenset[str]:
        """Return the versions that the policy in force needs."""
        routing = self._routings.get(name)
        return frozenset(versions_of(routing.policy) if routing else ())

    def numbers(self) -> dict[str, int]:
        """Return the number of the policy in force, by model."""
        return {name: routing.policy.number for name, routing in self._routings.items()}

    def item(self, at_us: int) -> dict[str, PolicyCounts]:
        """Return what was counted under the policies in force, by model."""
        return {name: routing.item(at_us) for name, routing in self._routings.items()}

    def due(self, name: str, champion: str) -> TrafficPolicy | None:
        """Return a policy that is to come into force; what is in force no longer is let go of.

        Args:
            champion: who holds the alias.

        Raises:
            PackageError: the policy's file is damaged; what was in force still is.
        """
        self.drop_outdated(name, champion)
        seen = self._traffic.number(name), champion
        if self._seen.get(name) == seen:
            return None
        policy = self._traffic.get(name)
        if policy is None or policy.champion != champion or (policy.phase == "champion" and not policy.shadows):
            self.drop(name)
            self._seen[name] = seen
            return None
        return policy

    def apply_policy(self, name: str, policy: TrafficPolicy, models: Mapping[str, ServedModel]) -> None:
        """Put a policy in force.

        Args:
            models: its versions, open.

        Raises:
            PackageError: it cannot be; what was in force still is.
        """
        self._routings[name] = Routing(policy, models, self._metrics)
        self._seen[name] = policy.number, policy.champion
        self._metrics.traffic_policy(name).set(policy.number)
        self._metrics.traffic_share(name).set(policy.share)

    def drop_outdated(self, name: str, champion: str) -> None:
        """Let go of a policy whose champion does not hold the alias any more."""
        routing = self._routings.get(name)
        if routing is not None and routing.policy.champion != champion:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Let the champion of a model answer all."""
        self._seen.pop(name, None)
        if self._routings.pop(name, None) is not None:
            self._metrics.traffic_policy(name).set(0)
            self._metrics.traffic_share(name).set(0)

    def refused(self, name: str, *, refused: bool) -> None:
        """Show whether the newest policy of a model cannot come into force."""
        if refused or name in self._seen:
            self._metrics.traffic_refused(name).set(refused)

    def end(self, name: str, holder: str, *, moves: int, reason: str, now_us: int) -> bool:
        """Write that the holder of the alias answers all, where a policy says otherwise of any version.

        Args:
            moves: how often the alias has moved.

        Returns:
            Whether a policy for this holder was ended; one for another had no effect.

        Raises:
            ConflictError: somebody wrote another policy at the same time.
        """
        policy = self._traffic.get(name)
        if policy is None or (policy.phase == "champion" and not policy.shadows):
            return False
        over = replace(
            policy,
            phase="champion",
            champion=holder,
            challenger=None,
            share=0.0,
            shadows=(),
            step=0,
            since_us=now_us,
            moves=moves,
            reason=reason,
            evidence=None,
        )
        self._traffic.replace(name, over, expect=policy.number)
        self.drop(name)
        return policy.champion == holder


class RolloutCountsFile:
    """Writes one file of this process every 2 seconds, and at its end: its counts are true as long as the policy lasts.

    Files of policies that are over are swept at the start, one's own as soon as no policy is in force.
    """

    def __init__(self, state: Path, routes: TrafficPolicies, clock: Clock) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.json"
        self._path = counts_folder(state) / name
        self._state = state
        self._routes = routes
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; call it from the event loop."""
        delete_old_counts(self._state, self._routes.numbers())
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write for the last time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.write()

    async def write(self) -> None:
        """Write now; a disk that refuses is told to the log, and tried again next time."""
        models = self._routes.item(self._clock.now_us())
        try:
            if models:
                await asyncio.to_thread(write_counts, self._path, models)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            _log.error("vitals_not_written", error=str(error))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_SECONDS)
            await self.write()
