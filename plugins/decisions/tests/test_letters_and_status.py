"""Sinks of a project: its status, its refused decisions, and the predictions that retention keeps for them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoints
from pathlib import Path

import pytest

from plugins.decisions.tests.decided import STREAM, T_US, append_decisions, decision_id
from plugins.decisions.tests.sinks import SECRET
from skewless.contract.decisions import DecisionStream
from skewless.contract.errors import ConflictError, DefinitionError, StoreError
from skewless.contract.settings import Settings
from skewless.contract.sinks import ParquetSink, RedisStreamSink, Sink, WebhookSink
from skewless.infra.definitions.compiler.compiled_repo import CompiledRepo
from skewless.infra.definitions.plans.applied_plan import hold_apply, read_plan_number, read_valid, save_applied
from skewless.infra.log.daily_counts import DailyCounts, RowCounts
from skewless.infra.platform.host import plugins
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import DAY_US
from skewless.operations.data.decision_port import find_decisions
from skewless.operations.data.events import _open_deciders
from skewless.operations.health.status import read_status
from skewless.operations.state.housekeeping import run_housekeeping
from skewless.project import Project
from skewless_control_room.refused import list_refused, sample_refused
from skewless_decisions.decision_log import DeadEvent, DecidedPosition, DecidedRange, DecisionLog
from skewless_decisions.delivery import SinkDelivery
from skewless_decisions.letters import DeadLetters
from skewless_decisions.sink_adapters import SinkContext
from skewless_decisions.sink_positions import Refusal, SinkPosition, SinkPositions
from tests.servers.webhook import HookReply, WebhookReceiver, webhook_receiver
from tests.unit.infra.predictions.merges import segments
from tests.worlds.command_line import run
from tests.worlds.trained import MODEL, Sandbox
from tests.worlds.waiting import until


@pytest.fixture
def place(place: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A copy a minute after its store was filled, whose clock is also that of commands."""
    monkeypatch.setenv("SKEWLESS_CLOCK", f"file:{tmp_path}/p/.skewless/clock")
    place.wait(60)
    return place


def declare(place: Sandbox, sink: Sink) -> ProjectState:
    """Give a project a decision stream with one sink; return its state."""
    state = ProjectState(place.state)
    applied = read_valid(state)
    assert applied is not None
    stream = DecisionStream(name=STREAM, model=MODEL, source="payments", sinks=(sink,))
    with hold_apply(state) as lease:
        save_applied(state, replace(applied, decisions=(stream,)), read_plan_number(state) + 1, lease)
    place.project.refresh()
    return state


@pytest.fixture
def state(place: Sandbox) -> ProjectState:
    """The state of a project whose decision stream has one sink."""
    return declare(place, ParquetSink(name="out"))


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookReceiver]:
    """A receiver that refuses two decisions for good."""
    monkeypatch.setenv("HOOK_SECRET", SECRET["HOOK_SECRET"])
    with webhook_receiver() as receiver:
        refuse(receiver, 2, 4)
        yield receiver


def refuse(hook: WebhookReceiver, *positions: int) -> None:
    ids = {decision_id(position) for position in positions}
    hook.answer = lambda request: HookReply(422 if request.headers["webhook-id"] in ids else 200)


def sink_of(hook: WebhookReceiver) -> WebhookSink:
    return WebhookSink(name="out", url=hook.url, secret_env="HOOK_SECRET", key="card")  # noqa: S106 - a name


def context_of(state: ProjectState) -> SinkContext:
    return SinkContext(state=state, settings=Settings(), redis_url=lambda: "")


def refuse_two(place: Sandbox, hook: WebhookReceiver) -> ProjectState:
    """Deliver six decisions, two of which become dead letters; add one of a decision that the log never had."""
    state = declare(place, sink_of(hook))
    delivery = SinkDelivery(context_of(state), sink_of(hook), [STREAM])
    append_decisions(state, range(6))
    delivery.start()
    until(lambda: delivery.counts.delivered + delivery.counts.refused == 6)
    delivery.stop()
    positions = SinkPositions(state.database)
    position = positions.read("out")
    assert position is not None
    positions.write("out", position, [Refusal(id="gone", position=10**6, reason="too large")], lambda: None)
    return state


def test_dead_letters_are_sent_again_with_their_bytes(place: Sandbox, hook: WebhookReceiver) -> None:
    state, letters = refuse_two(place, hook), DeadLetters(place.project)
    first = {request.headers["webhook-id"]: request.body for request in hook.requests}
    hook.requests.clear()
    tried = letters.send("out", dry_run=True)
    assert (tried.waiting, tried.missing, hook.requests) == (2, 1, [])
    hook.answer = lambda _: HookReply(503)
    with pytest.raises(StoreError, match="answered with status 503"):
        letters.send("out")
    assert SinkPositions(state.database).count_letters("out") == 3
    refuse(hook, 4)
    hook.requests.clear()
    sent = letters.send("out")
    assert [(letter.id, letter.state) for letter in sent.letters] == [
        (decision_id(2), "stored"),
        (decision_id(4), "refused"),
        ("gone", "missing"),
    ]
    assert {each.headers["webhook-id"]: each.body for each in hook.requests} == {
        name: first[name] for name in (decision_id(2), decision_id(4))
    }
    assert [letter.id for letter in letters.list().letters] == [decision_id(4), "gone"]
    today = DailyCounts(state.database).read("sinks/out")
    assert sum(counts.accepted for counts in today.values()) == 5
    (status,) = read_status(place.project).sinks
    assert (status.delivered, status.refused, status.letters) == (5, 1, 2)  # another letter is not of the sink's counts
    later = SinkDelivery(context_of(state), sink_of(hook), [STREAM])
    append_decisions(state, range(6, 8))  # a worker that delivers meanwhile and later counts on
    later.start()
    until(lambda: place.project.status().sinks[0].delivered == 7)
    later.stop()
    assert (later.count_waiting(), later.counts.letters, later.counts.refused) == (0, 2, 0)
    assert place.project.status().sinks[0].refused == 1


def test_the_commands_list_and_send_dead_letters(place: Sandbox, hook: WebhookReceiver) -> None:
    state = refuse_two(place, hook)
    event = DeadEvent(partition="events/payments/ab12/0", seq=7, reason="its condition failed")
    position = DecidedPosition(next=0)
    moved = DecidedRange(
        stream=STREAM, partition=event.partition, before=position, after=replace(position, next=8), dead=[event]
    )
    DecisionLog(state).append(None, [moved], T_US)
    said = run("letters", "list", "--limit", "1", "--repo", place.repo, "--json")
    assert said.body["total"] == 4
    assert [(each["kind"], each["name"], each["position"]) for each in said.body["letters"]] == [
        ("sink", "out", 10**6),
        ("stream", STREAM, 7),
    ]
    refuse(hook)
    once = ("letters", "send", "out", "--id", decision_id(2), "--repo", place.repo)
    assert (run(*once).code, run(*once).code) == (0, 6)  # it is no dead letter any more
    rest = run("letters", "send", "out", "--repo", place.repo, "--json")
    assert (rest.code, rest.body["stored"], rest.body["missing"]) == (5, 1, 1)


def test_one_process_sends_dead_letters_at_a_time(place: Sandbox, hook: WebhookReceiver) -> None:
    state = refuse_two(place, hook)
    lease = Leases(state.database).acquire("dead letters of sink out")
    assert lease is not None
    with pytest.raises(ConflictError, match="gets its dead letters from another process"):
        DeadLetters(place.project).send("out")
    assert SinkPositions(state.database).count_letters("out") == 3


def test_retention_keeps_what_a_sink_waits_for(place: Sandbox, state: ProjectState) -> None:
    positions = SinkPositions(state.database)
    positions.begin("out", 0)
    for start in (0, 10, 20):
        append_decisions(state, range(start, start + 10))
    project = Project(place.repo, clock=f"file:{place.state}/clock", keep_predictions_days=1)
    place.wait(max(0, (T_US + 9 * DAY_US - place.now_us()) // 1_000_000))
    kept = []
    for confirmed in (0, 15, 30):
        positions.write("out", SinkPosition(next=confirmed), (), lambda: None)
        run_housekeeping(project)
        kept.append([segment.first for segment in segments(state) if segment.at_us == T_US])
    project.close()
    assert kept[0][0] == 0
    assert sum(segment.rows for segment in segments(state) if segment.at_us == T_US) == 0
    assert kept[-1] == []


def test_status_and_the_page_of_refused_data_show_sinks(place: Sandbox, state: ProjectState) -> None:
    positions = SinkPositions(state.database)
    positions.begin("out", 0)
    append_decisions(state, range(10))
    refusal = Refusal(id=decision_id(3), position=3, reason="the receiver answered with status 422")
    positions.write("out", SinkPosition(next=6, confirmed=5, refused=1), [refusal], lambda: None)
    counts = RowCounts(accepted=5, refused=Counter({refusal.reason: 1}))
    DailyCounts(state.database).add("sinks/out", place.now_us(), counts)
    (sink,) = read_status(place.project).sinks
    assert (sink.name, sink.kind, sink.streams, sink.waiting) == ("out", "parquet", (STREAM,), 4)
    assert (sink.delivered, sink.refused, sink.process) == (5, 1, None)
    assert sink.lag_s is not None
    (log,) = [item for item in list_refused(place.project) if item.kind == "sink"]
    assert (log.log, log.name, log.accepted, log.rejected) == ("sinks/out", "out", 5, 1)
    (row,) = sample_refused(place.project, "sinks/out")
    assert (row.partition, row.position, row.reason) == ("predictions", 3, refusal.reason)
    assert row.values == {"prediction": decision_id(3)}


def test_status_shows_why_nothing_is_delivered_and_since_when(place: Sandbox, hook: WebhookReceiver) -> None:
    hook.answer = lambda _: HookReply(503)
    sink = WebhookSink(name="out", url=f"{hook.url}/s3cret", secret_env="HOOK_SECRET")  # noqa: S106 - a name
    state = declare(place, sink)
    delivery = SinkDelivery(context_of(state), sink, [STREAM])
    append_decisions(state, range(2))
    delivery.start()
    until(lambda: (place.project.status().sinks[0].retries or 0) >= 2)
    delivery.stop()  # what was recorded stays
    (status,) = place.project.status().sinks
    assert status.error == (
        "webhook 'out' at 127.0.0.1: answered with status 503. Fix: repair the receiver; no decision is lost"
    )
    assert status.since_us is not None
    said = run("status", "--repo", place.repo)
    assert "answered with status 503" in " ".join(said.stdout.split())
    assert "s3cret" not in said.stdout + run("status", "--repo", place.repo, "--json").stdout
    hook.answer = lambda _: HookReply(200)
    delivery = SinkDelivery(context_of(state), sink, [STREAM])
    delivery.start()
    until(lambda: place.project.status().sinks[0].error is None)
    delivery.stop()
    (status,) = place.project.status().sinks
    assert (status.since_us, status.retries, status.delivered) == (None, None, 2)


def test_no_password_of_a_sink_is_shown(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT_URL", "redis://ann:hush@127.0.0.1:1/0")
    sink = RedisStreamSink(name="out", stream="decisions", url_env="OUT_URL")
    state = declare(place, sink)
    delivery = SinkDelivery(context_of(state), sink, [STREAM])
    append_decisions(state, range(2))
    delivery.start()
    until(lambda: place.project.status().sinks[0].error is not None)
    delivery.stop()
    said = run("status", "--repo", place.repo, "--json").stdout
    assert "127.0.0.1:1" in said
    assert "hush" not in said


def test_a_plan_with_a_sink_whose_host_is_not_allowed_is_refused(
    place: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plan and apply compare in the same way, whether or not the definitions have changed."""
    sink = WebhookSink(name="out", url="https://169.254.169.254/latest", secret_env="HOOK_SECRET")  # noqa: S106 - a name
    applied = read_valid(declare(place, sink))
    assert applied is not None
    compiled = CompiledRepo(plan=applied.plan, models=applied.models, feast_objects=(), decisions=applied.decisions)
    monkeypatch.setattr("skewless.infra.definitions.compiler.compile.compile_repo", lambda _: compiled)
    with pytest.raises(DefinitionError, match=r"sink 'out': delivers to a host .* \(got '169.254.169.254'\)"):
        place.project.plan()


def test_without_the_plugin_nothing_that_needs_it_goes_on(
    place: Sandbox, state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker would decide nothing, and housekeeping would delete what a sink waits for."""
    SinkPositions(state.database).begin("out", 0)
    append_decisions(state, range(3))
    before = [segment.stored.name for segment in segments(state)]
    monkeypatch.setattr(plugins, "_entry_points", lambda _group, _name=None: EntryPoints(()))
    said = run("housekeeping", "--repo", place.repo)
    assert said.code == DefinitionError.exit_code
    lacking = "decider 'decisions': is not installed. Fix: pip install 'skewless[decisions]'"
    assert lacking in said.stderr
    with pytest.raises(DefinitionError, match=re.escape(lacking)):
        _open_deciders(place.project, place.project.applied.decisions)
    assert [segment.stored.name for segment in segments(state)] == before
    status = read_status(place.project)
    assert (status.decisions, status.sinks) == ([], [])
    assert sample_refused(place.project, "sinks/out") == []


def test_streams_that_the_plan_lacks_are_forgotten_by_the_next_worker(place: Sandbox) -> None:
    state = ProjectState(place.state)
    log = DecisionLog(state)
    log.begin("gone", {"events/payments/0": 4})
    assert log.read("gone", "events/payments/0").next == 5
    port = find_decisions()
    assert port is not None
    port.forget_streams(place.project)
    assert log.read("gone", "events/payments/0").next == 0
