"""The outbox: whatever is appended, offered, merged or killed, a sink gets every decision, in the order of the log."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.decisions.tests.decided import STREAM, append_decisions, decision_id
from skewless.infra.log.compaction import compact
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import PREDICTIONS
from skewless_decisions.decision import find_decisions
from skewless_decisions.outbox import DecisionBatch, Outbox
from skewless_decisions.sink_positions import Refusal, SinkPositions

Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "decide",
                "decide and offer",
                "request",
                "deliver",
                "kill before",
                "kill after",
                "restart",
                "merge",
                "refuse",
            ]
        ),
        st.integers(1, 7),
    ),
    max_size=25,
)


@dataclass
class World:
    """A log, a sink in memory, and the outbox of a process that may end."""

    state: ProjectState
    is_fixed: bool
    appended: list[str] = field(default_factory=list)
    batches: list[tuple[int, int, tuple[str, ...]]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    n: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Continue in a new process."""
        self.outbox = Outbox(self.state, "out", streams={STREAM}, check=lambda: None)

    def append(self, size: int, *, offer: bool) -> None:
        """Append decisions."""
        positions = range(self.n, self.n + size)
        self.n += size
        segment, rows = append_decisions(self.state, positions)
        self.appended += [decision_id(position) for position in positions]
        if offer:
            found = find_decisions(rows, {STREAM})
            batch = DecisionBatch(
                first=segment.first,
                last=segment.last,
                positions=[segment.first + offset for offset, _ in found],
                decisions=[decision for _, decision in found],
            )
            self.outbox.offer(batch)

    def deliver(self, most: int, *, stored: bool = True, confirmed: bool = True, refuse: bool = False) -> bool:
        """Deliver one batch, up to a step; return whether there was one."""
        batch = self.outbox.read(most)
        if batch is None:
            return False
        if self.is_fixed:
            self.outbox.claim(batch)
        names = tuple(decision.id for decision in batch.decisions)
        refusals: Sequence[Refusal] = ()
        if stored:
            if refuse and names:
                refusals = [Refusal(id=names[0], position=batch.positions[0], reason="no")]
                self.refused.add(names[0])
            self.batches.append((batch.first, batch.last, names))
        if confirmed:
            self.outbox.confirm(batch.last, len(names) - len(refusals), refusals)
        return True

    def kill(self, most: int, *, stored: bool) -> None:
        """End the process before it confirms a batch, and start another one."""
        self.deliver(most, stored=stored, confirmed=False)
        self.restart()

    def check(self) -> None:
        """Compare the sink with the log."""
        order = {name: at for at, name in enumerate(self.appended)}
        seen: dict[str, None] = {}
        for _, _, names in self.batches:
            assert list(names) == sorted(names, key=order.__getitem__)
            seen |= dict.fromkeys(names)
        assert list(seen) == self.appended  # first deliveries are in the order of the log
        position = SinkPositions(self.state.database).read("out")
        assert position is not None
        assert position.confirmed + position.refused == len(self.appended)
        assert {letter.id for letter in SinkPositions(self.state.database).dead_letters("out")} <= self.refused
        if self.is_fixed:  # a file that is written again is the same
            files: dict[tuple[int, int], tuple[str, ...]] = {}
            for first, last, names in self.batches:
                assert files.setdefault((first, last), names) == names
            assert sorted(name for names in files.values() for name in names) == sorted(self.appended)


def run(root: Path, steps: Sequence[Step], *, is_fixed: bool) -> None:
    world = World(ProjectState(root), is_fixed)
    actions: dict[str, Callable[[int], object]] = {
        "decide": lambda size: world.append(size, offer=False),
        "decide and offer": lambda size: world.append(size, offer=True),
        "request": lambda size: append_decisions(world.state, range(10_000, 10_000 + size), stream=None),
        "deliver": world.deliver,
        "kill before": lambda size: world.kill(size, stored=False),
        "kill after": lambda size: world.kill(size, stored=True),
        "restart": lambda _: world.restart(),
        "merge": lambda size: compact(PartitionLog(world.state, PREDICTIONS), keep=size % 3, group=lambda _: "all"),
        "refuse": lambda size: world.deliver(size, refuse=True),
    }
    for name, size in steps:
        actions[name](size)
    while world.deliver(5):
        pass
    world.check()


@pytest.mark.timeout(1_200)  # the thousand examples of `make soak` wait for the disk
@given(STEPS, st.booleans())
def test_a_sink_gets_every_decision_in_the_order_of_the_log(steps: Sequence[Step], is_fixed: bool) -> None:  # noqa: FBT001 - drawn
    with tempfile.TemporaryDirectory() as root:
        run(Path(root), steps, is_fixed=is_fixed)
