"""The traffic policies that one server applies, and their counts."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import replace

from skewless.contract.clock import Clock
from skewless.contract.errors import StoreError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.models.packages.store import Traffic, versions_of
from skewless.infra.models.rollout.counts import PolicyCounts, delete_old_counts, write_counts
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.routing import Routing

_WRITE_SECONDS = 2.0
_log = EventLogger()


class TrafficPolicies:
    """Holds the routing of each model with a traffic policy.

    A policy applies only while its champion holds the alias: moving the alias ends it. So after a crash between moving
    the alias and writing the last policy of a rollout, the version with the alias serves all traffic. In the phase
    ``champion`` without shadows nothing has to be routed.

    Args:
        traffic: the policies of the project, to end one.
    """

    def __init__(self, traffic: Traffic, metrics: Metrics) -> None:
        self._traffic = traffic
        self._metrics = metrics
        self._routings: dict[str, Routing] = {}
        self._checked: dict[str, tuple[int | None, str]] = {}

    def get(self, name: str) -> Routing | None:
        """Return the routing of a model; None: its champion serves all requests."""
        return self._routings.get(name)

    def versions(self, name: str) -> frozenset[str]:
        """Return the versions that the applied policy needs."""
        routing = self._routings.get(name)
        return frozenset(versions_of(routing.policy) if routing else ())

    def policy_numbers(self) -> dict[str, int]:
        """Return the number of the applied policy, by model."""
        return {name: routing.policy.number for name, routing in self._routings.items()}

    def read_counts(self, at_us: int) -> dict[str, PolicyCounts]:
        """Return the counts under the applied policies, by model."""
        return {name: routing.read_counts(at_us) for name, routing in self._routings.items()}

    def pending_policy(self, name: str, champion: str, policy: TrafficPolicy | None) -> TrafficPolicy | None:
        """Return the current policy if it is new and should be applied; an outdated policy is dropped.

        Args:
            champion: the version with the alias.
            policy: the current policy of the model.
        """
        self.drop_outdated(name, champion)
        current = policy.number if policy else None, champion
        if self._checked.get(name) == current:
            return None
        if policy is None or policy.champion != champion or (policy.phase == "champion" and not policy.shadows):
            self.drop(name)
            self._checked[name] = current
            return None
        return policy

    def apply_policy(self, name: str, policy: TrafficPolicy, models: Mapping[str, ServedModel]) -> None:
        """Apply a policy.

        Args:
            models: its versions, loaded.

        Raises:
            PackageError: the policy cannot be applied; the previous one still applies.
        """
        self._routings[name] = Routing(policy, models, self._metrics)
        self._checked[name] = policy.number, policy.champion
        self._metrics.traffic_policy(name).set(policy.number)
        self._metrics.traffic_share(name).set(policy.share)

    def drop_outdated(self, name: str, champion: str) -> None:
        """Drop a policy whose champion does not hold the alias any more."""
        routing = self._routings.get(name)
        if routing is not None and routing.policy.champion != champion:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Send all requests of a model to its champion."""
        self._checked.pop(name, None)
        if self._routings.pop(name, None) is not None:
            self._metrics.traffic_policy(name).set(0)
            self._metrics.traffic_share(name).set(0)

    def show_rejected(self, name: str, *, rejected: bool) -> None:
        """Show whether the latest policy of a model cannot be applied."""
        if rejected or name in self._checked:
            self._metrics.traffic_refused(name).set(rejected)

    async def end_policy(self, name: str, alias_version: str, *, moves: int, reason: str, now_us: int) -> bool:
        """Write a policy that sends all traffic to the version with the alias, if the current policy does not.

        Args:
            alias_version: the version with the alias.
            moves: number of moves of the alias so far.

        Returns:
            Whether the policy was for this version; a policy for another version had no effect.

        Raises:
            ConflictError: another process wrote a policy at the same time.
        """
        policy = await asyncio.to_thread(self._traffic.get, name)
        if policy is None or (policy.phase == "champion" and not policy.shadows):
            return False
        final_policy = replace(
            policy,
            phase="champion",
            champion=alias_version,
            challenger=None,
            share=0.0,
            shadows=(),
            step=0,
            since_us=now_us,
            moves=moves,
            reason=reason,
            evidence=None,
        )
        await asyncio.to_thread(self._traffic.replace, name, final_policy, expect=policy.number)
        self.drop(name)
        return policy.champion == alias_version


class RolloutCountsWriter:
    """Writes the rollout counts of this process every 2 seconds, and once more at the end.

    Counts of ended policies are deleted at the start; the own ones are deleted as soon as no policy applies.
    """

    def __init__(self, state: ProjectState, policies: TrafficPolicies, clock: Clock) -> None:
        # The random part: a new process with the same pid must not overwrite the counts of an ended one, which still
        # count.
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._is_written = False
        self._state = state
        self._policies = policies
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to write."""
        try:
            await asyncio.to_thread(delete_old_counts, self._state, self._policies.policy_numbers())
        except StoreError as error:
            _log.warning("old_rollout_counts_not_deleted", error=str(error))
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write a last time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.write()

    async def write(self) -> None:
        """Write now; an error is logged, and the next write tries again."""
        models = self._policies.read_counts(self._clock.now_us())
        if not models and not self._is_written:
            return
        try:
            await asyncio.to_thread(write_counts, self._state, self._name, models)
        except StoreError as error:
            _log.error("rollout_counts_not_written", error=str(error))
        else:
            self._is_written = bool(models)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            await self.write()
