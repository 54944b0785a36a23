"""Each command is a method of ``Project``: the same name, options, answer, error and exit code."""

from __future__ import annotations

import inspect
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from skewless import ManualClock, Project, workspace
from skewless.cli import create_app
from skewless.commands.all_commands import COMMANDS
from skewless.commands.command import Command
from skewless.commands.operate import invoke_in_process
from skewless.commands.output import plain
from skewless.commands.serve import reply_body
from skewless.contract.errors import SkewlessError
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.workspace import Workspace
from tests.docs.pages import names, page, section, table
from tests.nightly.worlds.verb_answers import keys, nameless, offline, scores, size_of, states, timeless, verdicts
from tests.worlds.command_line import ROWS, run
from tests.worlds.trained import NOW

METHOD_OF = {"import": "import_events"}  # a keyword of Python
# Options that only choose what is shown, how the process ends, or where the project is and what its settings are.
OF_THE_COMMAND = {
    "repo", "engine", "as_json", "context", "check", "no_check", "folder", "suggest", "write", "row", "yes", "platform",
}  # fmt: skip
# Texts that the command parses: its option -> the parameter that takes what was meant.
PARSED = {"key": "keys", "as_of": "as_of_us", "since": "since_us", "until": "until_us", "expires": "expires_us"}
PARSED_BY_VERB = {
    **{verb: {"window": "window_us"} for verb in ("quality", "drift", "importance")},
    "train": {"models": "model"},  # one at a time, so that one that fails leaves the others
    "materialize": {"dry_run": "check"},  # see `pending`
}
# Parameters for what people see on a terminal.
FOR_PROGRAMS = {"on_rows", "on_step", "on_ready", "on_counts", "on_file"} | {
    *("stop", "invoke", "check", "folder", "repo", "rows"),
}
# Methods that are an option of a verb: what they return has a type of its own.
OPTIONS = {"suggest": "validate", "pending": "materialize", "predict_file": "predict"}
TAKEN = {"predict": {"source", "target", "leaves"}, "serve": {"platform"}}


def method_of(verb: Command) -> Callable[..., Any]:
    """Return the method of a verb: of ``Project``, or of what a group of verbs is there."""
    above, _, word = verb.name.rpartition(" ")
    if not above:
        return getattr(Project, METHOD_OF.get(word, word))  # type: ignore[no-any-return]
    prop = inspect.getattr_static(Project, above)
    kind = inspect.get_annotations(prop.fget, eval_str=True)["return"]
    return getattr(kind, word)  # type: ignore[no-any-return]


def test_every_public_method_is_a_verb() -> None:
    own = {name for name in vars(Project) if not name.startswith("_")} - {"keys", "lists", "runs"}
    assert own - OPTIONS.keys() == {METHOD_OF.get(v.name, v.name) for v in COMMANDS if " " not in v.name}
    assert not own & vars(Workspace).keys()


def test_the_page_lists_every_method_with_what_it_returns() -> None:
    rows = table(section(page("python.md"), "The commands"), "command", "method", "returns")
    found = {names(row["command"])[0]: (names(row["method"])[0], names(row["returns"])[0]) for row in rows}
    dotted = {verb.name: verb.name.replace(" ", ".") for verb in COMMANDS} | METHOD_OF
    returned = {verb.name: inspect.get_annotations(method_of(verb))["return"] for verb in COMMANDS}
    options = {name: inspect.get_annotations(getattr(Project, name))["return"] for name in OPTIONS}
    listed = {name: found.pop(name) for name in [*found] if " -" in name}
    assert found == {name: (dotted[name], returned[name]) for name in dotted}
    assert dict(listed.values()) == options
    assert {name.partition(" -")[0] for name in listed} == set(OPTIONS.values())


@pytest.mark.parametrize("verb", COMMANDS, ids=lambda verb: verb.name)
def test_a_method_takes_what_its_command_takes(verb: Command) -> None:
    options = {PARSED.get(name, name) for name in inspect.signature(verb.run).parameters} - OF_THE_COMMAND
    own = PARSED_BY_VERB.get(verb.name, {})
    options = {own.get(name, name) for name in options} - FOR_PROGRAMS - TAKEN.get(verb.name, set())
    assert options == inspect.signature(method_of(verb)).parameters.keys() - {"self", "project"} - FOR_PROGRAMS
    assert (method_of(verb).__doc__ or "").strip()


@dataclass(frozen=True)
class VerbCase:
    """One call, said twice.

    Args:
        words: of the command, without ``--repo``.
        call: the same on a project.
        kept: what is compared of either answer: some change from call to call.
    """

    words: str
    call: Callable[[Project], Any]
    kept: Callable[[Any], Any] = lambda answer: answer


ROW = json.dumps(ROWS[0])
IN_PROCESS = invoke_in_process(get_command(create_app()))
CARD = {"card_id": "5"}
CASES = [
    VerbCase("plan", lambda p: p.plan()),
    VerbCase("apply --dry-run", lambda p: p.apply(dry_run=True)),
    VerbCase("validate", lambda p: p.validate(), timeless),
    VerbCase("validate fraud --all", lambda p: p.validate(["fraud"], everything=True), timeless),
    VerbCase("validate --suggest", lambda p: p.suggest()),
    VerbCase("materialize --dry-run", lambda p: p.pending()),
    VerbCase("materialize shop_risk --dry-run", lambda p: p.pending(["shop_risk"])),
    VerbCase("materialize nowhere", lambda p: p.materialize(["nowhere"])),
    VerbCase("materialize", lambda p: p.materialize()),
    VerbCase("get card_days --key card_id=5", lambda p: p.get("card_days", CARD)),
    VerbCase("get card_days --key card_id=5 --as-of 1", lambda p: p.get("card_days", CARD, as_of_us=1)),
    VerbCase("dataset --entities asked.parquet --service fraud --out rows --time paid_at --dry-run",
         lambda p: p.dataset(Path("asked.parquet"), "fraud", Path("rows"), time="paid_at", dry_run=True)),
    VerbCase("train fraud", lambda p: p.train("fraud"), lambda a: a["models"][0] if "models" in a else a),
    VerbCase("sign --dry-run", lambda p: p.sign(dry_run=True)),
    VerbCase("adopt nowhere.tar.gz fraud --digest 0", lambda p: p.adopt(Path("nowhere.tar.gz"), "fraud", digest="0")),
    VerbCase("approve fraud --by ada --reason ok --dry-run",
             lambda p: p.approve("fraud", by="ada", reason="ok", dry_run=True)),
    VerbCase("bundle bundle --dry-run", lambda p: p.bundle(Path("bundle"), dry_run=True)),
    VerbCase("versions fraud", lambda p: p.versions("fraud")),
    VerbCase("promote fraud --dry-run", lambda p: p.promote("fraud", dry_run=True)),
    VerbCase("rollout", lambda p: p.rollout()),
    VerbCase("rollout fraud --step", lambda p: p.rollout("fraud", step=True)),
    VerbCase("rollout fraud --begin 000001 --dry-run", lambda p: p.rollout("fraud", begin="000001", dry_run=True)),
    VerbCase("rollback fraud", lambda p: p.rollback("fraud")),
    VerbCase(f"predict --row {ROW}", lambda p: p.predict(None, ROWS[:1]), scores),
    VerbCase("predict --in asked.parquet --out out.csv",
         lambda p: {"rows": p.predict_file(None, Path("asked.parquet"), Path("out.csv"))}),
    VerbCase("feedback outcomes.csv", lambda p: p.feedback(Path("outcomes.csv")), nameless),
    VerbCase("quality", lambda p: p.quality()),
    VerbCase("quality fraud --window 6h --since 1d",
         lambda p: p.quality("fraud", window_us=6 * 3_600_000_000, since_us=p.clock.now_us() - 86_400_000_000)),
    VerbCase("drift --dry-run", lambda p: p.drift(dry_run=True)),
    VerbCase("predictions fraud --key card_id=5 --limit 3", lambda p: p.predictions("fraud", keys=CARD, limit=3)),
    VerbCase("why nosuch", lambda p: p.why("nosuch")),
    VerbCase("replay", lambda p: p.replay()),
    VerbCase("replay fraud --new", lambda p: p.replay("fraud", new=True)),
    VerbCase("parity --sample 50", lambda p: p.parity(sample=50)),
    VerbCase("freshness", lambda p: p.freshness()),
    VerbCase("alerts --all", lambda p: p.alerts(show_all=True)),
    VerbCase("import", lambda p: p.import_events()),
    VerbCase("backfill --dry-run", lambda p: p.backfill(dry_run=True)),
    VerbCase("stream --until-idle", lambda p: p.stream(until_idle=True)),
    VerbCase("triggers fraud", lambda p: p.triggers("fraud")),
    VerbCase("housekeeping --dry-run", lambda p: p.housekeeping(dry_run=True)),
    VerbCase("housekeeping", lambda p: p.housekeeping()),
    VerbCase("erase --entity nokey=1 --yes", lambda p: p.erase({"nokey": "1"})),
    VerbCase("backup /nowhere/copy --dry-run", lambda p: p.backup(Path("/nowhere/copy"), dry_run=True), size_of),
    VerbCase("bundle /nowhere/bundle --dry-run", lambda p: p.bundle(Path("/nowhere/bundle"), dry_run=True)),
    VerbCase("recover --dry-run", lambda p: p.recover(dry_run=True)),
    VerbCase("status", lambda p: p.status(), offline),
    VerbCase("doctor", lambda p: p.doctor(p.repo), verdicts),
    VerbCase("init new --dry-run", lambda p: p.init(p.repo / "new", dry_run=True)),
    VerbCase("scheduler --once --only validate", lambda p: p.scheduler(only=["validate"], invoke=IN_PROCESS), states),
    VerbCase("keys list", lambda p: p.keys.list(), keys),
    VerbCase("keys add web --dry-run", lambda p: p.keys.add("web", dry_run=True).key),
    VerbCase("keys revoke web", lambda p: p.keys.revoke("web")),
    VerbCase("lists list", lambda p: {"lists": [version.as_dict() for version in p.lists.list()]}),
    VerbCase("lists set stolen outcomes.csv --reason ok --dry-run",
             lambda p: p.lists.set("stolen", Path("outcomes.csv"), reason="ok", dry_run=True)),
    VerbCase("runs list", lambda p: p.runs.list(), states),
    VerbCase("runs show validate@20260115T060000Z", lambda p: p.runs.show("validate@20260115T060000Z")),
    VerbCase("runs start validate --dry-run", lambda p: {"run": str(p.runs.start("validate", dry_run=True))}),
    VerbCase("runs retry validate@20260115T060000Z", lambda p: p.runs.retry("validate@20260115T060000Z")),
    VerbCase("runs cancel validate@20260115T060000Z", lambda p: p.runs.cancel("validate@20260115T060000Z")),
]  # fmt: skip
# Verb -> the call about something of a name.
ABOUT: dict[str, Callable[[Project, str], Any]] = {
    "validate": lambda p, name: p.validate([name]),
    "train": lambda p, name: p.train(name),
    "sign": lambda p, name: p.sign([name]),
    "promote": lambda p, name: p.promote(name),
    "versions": lambda p, name: p.versions(name),
    "import": lambda p, name: p.import_events([name]),
    "stream": lambda p, name: p.stream([name]),
    "backfill": lambda p, name: p.backfill([name]),
    "get": lambda p, name: p.get(name, {}),
    "quality": lambda p, name: p.quality(name),
    "replay": lambda p, name: p.replay(name),
    "predictions": lambda p, name: p.predictions(name),
    "why": lambda p, name: p.why(name),
    "parity": lambda p, name: p.parity([name]),
    "drift": lambda p, name: p.drift(name),
    "freshness": lambda p, name: p.freshness([name]),
    "rollout": lambda p, name: p.rollout(name),
    "rollback": lambda p, name: p.rollback(name),
    "triggers": lambda p, name: p.triggers(name),
    "keys revoke": lambda p, name: p.keys.revoke(name),
    "runs show": lambda p, name: p.runs.show(name),
    "runs start": lambda p, name: p.runs.start(name),
    "runs retry": lambda p, name: p.runs.retry(name),
    "runs cancel": lambda p, name: p.runs.cancel(name),
}


def test_every_verb_has_a_case() -> None:
    words = [case.words for case in CASES]
    named = {verb.name for verb in COMMANDS if any(f"{each} ".startswith(f"{verb.name} ") for each in words)}
    assert {verb.name for verb in COMMANDS} - named == {"serve", "restore"}  # see below, and test_backup.py


def as_json(result: Any) -> Any:  # noqa: ANN401 - of any verb
    """Return what a method returned as JSON has it."""
    if isinstance(result, pa.Table):
        return json.loads(json.dumps(plain(reply_body(result))))
    if isinstance(result, list | tuple):
        return [as_json(item) for item in result]
    if hasattr(result, "as_dict"):
        result = result.as_dict()
    elif is_dataclass(result) and not isinstance(result, type):
        result = asdict(result)
    return json.loads(json.dumps(plain(result)))


def holds(body: dict[str, Any], answer: Any) -> bool:  # noqa: ANN401 - JSON
    """Say whether a command's JSON holds what the method returned; it may say more."""
    if answer is None:
        return True
    if isinstance(answer, dict):
        return all(body[name] == answer[name] for name in answer)
    return answer in body.values()


@pytest.fixture(scope="module")
def twins(places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two equal projects and files that verbs read: what one is told, the other is told as well."""
    folder = tmp_path_factory.mktemp("twins")
    for name in ("said", "called"):
        shutil.copytree(places["unasked"], folder / name / "project")
        payments = pq.read_table(places["unasked"] / "data/payments.parquet").slice(0, 20)
        pq.write_table(payments.select(["card_id", "shop_id", "amount", "paid_at"]), folder / name / "asked.parquet")
        (folder / name / "outcomes.csv").write_text("prediction_id,label\nab-1,1\nab-2,0\n")
    yield folder
    for name in ("said", "called"):
        PrivateServer(folder / name / "project/.skewless").stop()


@pytest.fixture
def asked(stages: dict[str, Path], twins: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The twins, with a clock that stands still."""
    assert stages
    monkeypatch.setattr(workspace, "open_clock", lambda _setting: ManualClock(NOW + 3_600_000_000))
    return twins


def called(call: Callable[[Project], Any], folder: Path) -> tuple[int, Any]:
    """Return the exit code and JSON that a method means."""
    try:
        with Project(folder / "project") as project:
            result = call(project)
            error = getattr(result, "error", None) or getattr(result, "refusal", None)
            return (error.exit_code if error else 0), as_json(result)
    except SkewlessError as error:
        return error.exit_code, as_json(error.as_dict())


def same_place(answer: Any) -> Any:  # noqa: ANN401 - JSON
    return json.loads(json.dumps(answer).replace("/called/project", "/said/project"))


@pytest.mark.timeout(600)
def test_each_method_answers_as_its_command(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other: what a case leaves behind, the next ones see on both sides."""
    for case in CASES:
        monkeypatch.chdir(asked / "said")
        words = [*case.words.partition("{")[0].split(), *([ROW] if "{" in case.words else [])]
        said = run(*words, "--repo", asked / "said/project", "--json")
        monkeypatch.chdir(asked / "called")
        code, answer = called(case.call, asked / "called")
        assert code == said.code or case.words == "doctor", (case.words, said, answer)
        body, answer = rounded(said.body), rounded(same_place(answer))
        if code and "exit_code" in body.get("error", {}):
            assert body["error"].items() >= answer.items() or "reason" in body, (case.words, body, answer)
        elif case.kept(body) != body:
            assert case.kept(body) == case.kept(answer), case.words
        else:
            assert holds(body, answer), (case.words, body, answer)


def rounded(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return JSON without the last digits of its numbers: predictions have ids of chance, and are summed up by them."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


@pytest.mark.parametrize("verb", ABOUT)
def test_an_unknown_name_is_the_same_error(walked: Path, verb: str) -> None:
    said = run(*verb.split(), "nosuch", "--repo", walked, "--json")
    with Project(walked) as project, pytest.raises(SkewlessError) as caught:
        ABOUT[verb](project, "nosuch")
    assert (said.code, caught.value.exit_code) == (6, 6)
    assert said.body["error"].items() >= as_json(caught.value.as_dict()).items()


def test_a_server_that_cannot_listen_is_the_same_error(walked: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = run("serve", "--port", str(port), "--repo", walked, "--json")
        with Project(walked) as project, pytest.raises(SkewlessError) as caught:
            project.serve(port=port)
    assert said.code == caught.value.exit_code == 10
    assert said.body["error"].items() >= as_json(caught.value.as_dict()).items()


def test_a_folder_without_a_project_is_the_same_error(tmp_path: Path) -> None:
    said = run("status", "--repo", tmp_path, "--json")
    with pytest.raises(SkewlessError) as caught:
        Project(tmp_path)
    assert said.code == caught.value.exit_code == 10
    assert said.body["error"].items() >= as_json(caught.value.as_dict()).items()
