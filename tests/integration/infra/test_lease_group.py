"""Members of a group share leases fairly as they join, leave, pause and die, on both databases."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.lease_group import LeaseGroup
from tests.servers.postgres import ON_SQLITE, address_of

N = 7
TTL_S = 0.3
MEMBER = """
import sys, time
from skewless.infra.platform.storage.lease_group import LeaseGroup
from skewless.infra.platform.storage.project_state import open_database
print(len(LeaseGroup(open_database(sys.argv[1]), "g", 7, 60.0).send_heartbeat([]).acquired), flush=True)
time.sleep(1_000)
"""


@dataclass
class GroupMember:
    """A member that works for its leases; ``all_held`` is what all members work for."""

    group: LeaseGroup
    all_held: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    def send(self) -> None:
        share = self.group.send_heartbeat(self.held)
        assert set(share.kept) <= set(self.held)
        self._drop([index for index in self.held if index not in share.kept])
        self._drop(share.surplus)
        # Nobody else works for them, because a member stops before its lease is free.
        assert not set(share.acquired) & set(self.all_held)
        self.held += share.acquired
        self.all_held += share.acquired

    def leave(self) -> None:
        self._drop(list(self.held))
        self.group.leave()

    def _drop(self, indices: Sequence[int]) -> None:
        for index in indices:
            self.held.remove(index)
            self.all_held.remove(index)


def shares(members: Sequence[GroupMember]) -> list[int]:
    """Return how many leases each member has after all have settled, most first."""
    for member in [*members] * 3:
        member.send()
    return sorted((len(member.held) for member in members), reverse=True)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 3))])
def test_members_that_join_and_leave_have_fair_shares_and_never_the_same_lease(
    project_database: Database, seed: int
) -> None:
    chance, all_held = random.Random(seed), list[int]()
    members: list[GroupMember] = []
    for _ in range(40):
        step = chance.choice(["join", "leave", "send", "send"])
        if step == "join" and len(members) < N + 2:
            members.append(GroupMember(LeaseGroup(project_database, "g", N, 60.0), all_held))
        elif step == "leave" and members:
            members.pop(chance.randrange(len(members))).leave()
        elif members:
            chance.choice(members).send()
    members.append(GroupMember(LeaseGroup(project_database, "g", N, 60.0), all_held))
    n = len(members)
    assert shares(members) == [N // n + (i < N % n) for i in range(n)]
    assert sorted(all_held) == list(range(N))


def test_leases_of_a_member_without_heartbeats_expire_all_at_once(project_database: Database) -> None:
    hung, heir = (GroupMember(LeaseGroup(project_database, "g", N, TTL_S)) for _ in range(2))
    hung.send()
    assert hung.held == list(range(N))
    heir.send()
    assert not heir.held
    time.sleep(1.2 * TTL_S)
    heir.send()
    assert heir.held == list(range(N))
    hung.send()
    assert not hung.held  # it gets its share when the heir has released it
    heir.send()
    heir.send()
    hung.send()
    assert len(hung.held) + len(heir.held) == N


def test_a_late_member_keeps_leases_that_nobody_has_acquired(project_database: Database) -> None:
    late = GroupMember(LeaseGroup(project_database, "g", N, TTL_S))
    late.send()
    time.sleep(1.2 * TTL_S)
    assert late.group.send_heartbeat(late.held).kept == list(range(N))


@ON_SQLITE
def test_leases_of_a_killed_process_are_free_at_once_on_its_machine(project_database: Database) -> None:
    heir = GroupMember(LeaseGroup(project_database, "g", N, 60.0))
    command = [sys.executable, "-c", MEMBER, address_of(project_database)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{N}\n"
        heir.send()
        assert not heir.held
        process.send_signal(signal.SIGKILL)
        process.wait()
    heir.send()
    assert heir.held == list(range(N))


def test_groups_do_not_share_leases(project_database: Database) -> None:
    for name in ("a", "b"):
        assert len(LeaseGroup(project_database, name, N, 60.0).send_heartbeat([]).acquired) == N
