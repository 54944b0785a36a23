"""Names that come in at the command line or from definitions: refused with a sentence, and nothing is touched."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.worlds.command_line import Said, run
from tests.worlds.hostile_text import MARKED_UP, NAMES, WRONG_NAMES

# Every verb with an argument or option that names something; %s stands for the name.
VERBS = (
    "validate -- %s", "train -- %s", "sign -- %s", "promote -- %s", "promote fraud -- %s", "versions -- %s",
    "dataset --entities data/payments.parquet --out out --service=%s", "import -- %s", "stream -- %s",
    "backfill -- %s", "predict --row {} -- %s", "get --key {} -- %s", "feedback data/payments.parquet --model=%s",
    "quality -- %s", "replay -- %s", "report -- %s", "why -- %s", "parity -- %s", "drift -- %s",
    "freshness -- %s", "alerts --resolve=%s", "rollout -- %s", "rollback -- %s", "scheduler --once --only=%s",
    "triggers -- %s", "keys add -- %s", "keys revoke -- %s", "runs list -- %s", "runs show -- %s", "runs start -- %s",
    "runs retry -- %s", "runs cancel -- %s", "letters list -- %s", "letters send -- %s",
    "rollout fraud --begin=%s", "quality fraud --since=%s", "quality fraud --window=%s", "drift fraud --window=%s",
    "replay --since=%s", "scheduler --once --until=%s",
    "export -- %s", "export fraud --to=%s",
    "dataset --service fraud --entities data/payments.parquet --out out --time=%s", "keys add new --expires=%s",
    "keys add new --rate=%s", "keys add new --scope=%s", "get card_days --key=%s",
    "get card_days --key card_id=c1 --as-of=%s", "predict fraud --row=%s", "predict fraud --in=%s --out out",
    "dataset --service fraud --out out --entities=%s",
)  # fmt: skip
QUIET = {"alerts", "runs list"}  # what is not there is nothing to do
# Verbs that are asked about something by its name.
ABOUT = (
    "validate", "train", "sign", "promote", "versions", "dataset --entities data/payments.parquet --out out --service",
    "import", "stream", "backfill", "predict --row {}", "get --key {}", "feedback data/payments.parquet --model",
    "quality", "predictions", "replay", "why", "parity", "drift", "freshness",
    "rollout", "rollback", "rollout nosuch --begin 1", "scheduler --once --only", "triggers", "keys revoke",
    "runs show", "runs start", "runs retry", "runs cancel", "export", "letters list", "letters send",
)  # fmt: skip
DECLARED = {
    "view": ("definitions.py", '    name="card_days",'),
    "service": ("definitions.py", 'FeatureService(name="fraud_features"'),
    "on-demand view": ("definitions.py", '    name="payment_time",'),
    "model": ("models.py", '        name="fraud",'),
}
_FIXTURES = [HealthCheck.function_scoped_fixture]
_Name = st.one_of(WRONG_NAMES, MARKED_UP.filter(lambda text: not text.isidentifier()))


def tree(repo: Path) -> set[str]:
    """Return what lies in a project and beside it, but for what its own server and its locks keep."""
    left_out = ("-wal", "-shm")  # of the database, while it is open
    found = (
        path
        for path in repo.parent.rglob("*")
        if not {"redis", "spill"} & {*path.parts} and not path.name.endswith(left_out)
    )
    return {str(path) for path in found if path.suffix != ".lock" and not path.name.startswith(".")} - {str(repo)}


def asked(repo: Path, verb: str, name: str) -> Said:
    """Run a verb about a name."""
    words = [word.replace("%s", name) for word in verb.split(" ")]
    at = words.index("--") if "--" in words else len(words)
    return run(*words[:at], "--repo", repo, *words[at:])


def check_verb(repo: Path, verb: str, name: str) -> int:
    """Ask, hold the answer against the rule, and return its code."""
    before = tree(repo)
    said = asked(repo, verb, name)
    assert tree(repo) == before, (verb, name)
    quiet = any(verb.startswith(words) for words in QUIET)
    assert said.code in ({0} if quiet else set()) | set(range(1, 13)), (verb, name, said)
    assert said.code == 0 or "Fix: " in said.stderr or "Usage: " in said.stderr, (verb, name, said)
    assert "Traceback" not in said.stderr
    assert len(said.stderr) < 10_000, (verb, name)
    return said.code


@pytest.mark.parametrize("verb", VERBS)
@given(name=_Name)
@example(name="")
@example(name="a\x00b")
@settings(max_examples=1, suppress_health_check=_FIXTURES, deadline=None)
def test_a_name_from_outside_names_nothing(walked: Path, verb: str, name: str) -> None:
    assert check_verb(walked, verb, name) in range(13)


@pytest.mark.parametrize("verb", ABOUT)
def test_an_unknown_name_is_a_wrong_request_whatever_it_names(walked: Path, verb: str) -> None:
    words = verb.split(" ")
    said = run(*words, *([] if "nosuch" in words else ["nosuch"]), "--repo", walked)
    assert (said.code, "nosuch" in said.stderr, "Fix: " in said.stderr) == (6, True, True), said


@pytest.mark.soak
def test_names_from_outside_for_long(walked: Path) -> None:
    codes: Counter[tuple[str, int]] = Counter()

    @given(verb=st.sampled_from(VERBS), name=_Name)
    @settings(max_examples=3_000, deadline=None)
    def ask(verb: str, name: str) -> None:
        codes[verb, check_verb(walked, verb, name)] += 1

    ask()
    sys.stdout.write("\n".join(f"{verb}: {n} ended with {code}" for (verb, code), n in sorted(codes.items())))
    assert codes.total() >= 3_000
    assert {verb for verb, _ in codes} == set(VERBS)


def check_declared(repo: Path, kind: str, name: str, verb: str) -> None:
    """Plan or apply definitions with a name, which must be refused by its kind and value."""
    file, text = DECLARED[kind]
    good = (repo / file).read_text()
    assert text in good
    wrong = text.replace(text.split('"')[1], "@").replace('"@"', repr(name))
    (repo / file).write_text(good.replace(text, wrong, 1))
    before = tree(repo)
    try:
        said = run(verb, "--repo", repo)
        assert tree(repo) == before
    finally:
        (repo / file).write_text(good)
    assert said.code == 2, (kind, name, said)
    assert "Fix: " in said.stderr, (kind, name, said.stderr)
    assert len(said.stderr) < 10_000


@pytest.mark.parametrize("kind", DECLARED)
@pytest.mark.parametrize("verb", ["plan", "apply"])
@given(name=st.one_of(st.just("../../v"), st.sampled_from(NAMES), WRONG_NAMES))
@settings(max_examples=2, suppress_health_check=_FIXTURES, deadline=None)
def test_definitions_with_a_wrong_name_are_refused(applied: Path, kind: str, verb: str, name: str) -> None:
    check_declared(applied, kind, name, verb)
    assert (applied / "feature_store.yaml").exists()


@pytest.mark.soak
def test_definitions_with_wrong_names_for_long(applied: Path, tmp_path: Path) -> None:
    repo = Path(shutil.copytree(applied, tmp_path / "long"))
    counts: Counter[tuple[str, str]] = Counter()

    @given(kind=st.sampled_from(sorted(DECLARED)), verb=st.sampled_from(["plan", "apply"]), name=WRONG_NAMES)
    @settings(max_examples=500, deadline=None)
    def declare(kind: str, verb: str, name: str) -> None:
        check_declared(repo, kind, name, verb)
        counts[kind, verb] += 1

    declare()
    sys.stdout.write(
        "\n".join(f"{verb} with a wrong name of a {kind}: {n} refused" for (kind, verb), n in sorted(counts.items()))
    )
    assert counts.total() >= 500
