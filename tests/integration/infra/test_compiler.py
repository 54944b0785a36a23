"""From a user's repo to the plan: what is compiled, and what is refused with file, thing and remedy."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skewless.commands.change_text import change_lines
from skewless.contract.columns import FeatureRef
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError, SkewlessError, SourceError
from skewless.infra.definitions.compiler.compile import compile_repo
from skewless.infra.definitions.compiler.compiled_repo import CompiledRepo
from skewless.infra.definitions.plans.planning import Planner
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from tests.worlds.edits import edit
from tests.worlds.payments_data import TEMPLATE, write_sample
from tests.worlds.plans import columns

NOW = 1_750_000_000_000_000
COUNTRY = 'Field(name="country", dtype=String),'
PYTHON = 'mode="python",\n    udf=transforms.payment_time,'
PANDAS = 'mode="pandas",\n    udf=(lambda frame: frame),'
DELAY = 'tags={"skewless.delay": "1h"},'
TWIN = 'twin = RequestSource(name="twin", schema=[Field(name="amount", dtype=Float64)])\n'
SECOND = """
second = FeatureView(name="%s", entities=[%s], schema=[%s], source=shop_risk.batch_source)
extra = FeatureService(name="extra", features=[second])
"""
MORE = """
asked = RequestSource(name="%s", schema=[Field(name="%s", dtype=Int64)])
more = OnDemandFeatureView(
    name="more", sources=[asked], schema=[Field(name="hour", dtype=Float64)], mode="python", udf=transforms.payment_time
)
"""
SHOP_KEY = 'Field(name="shop_id", dtype=String)'
X = 'Field(name="x", dtype=Float64)'


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    shutil.copytree(TEMPLATE, tmp_path / "repo")
    return tmp_path / "repo"


@pytest.fixture
def planner(repo: Path) -> Iterator[Planner]:
    write_sample(repo / "data", NOW)
    with connect(repo / "spill", threads=1) as connection:
        yield Planner(repo=repo, state=ProjectState(repo / ".skewless"), connect=lambda: connection)


def append(repo: Path, text: str) -> None:
    with (repo / "definitions.py").open("a") as file:
        file.write(text)


def test_6_1_the_template_compiles_to_this_plan(repo: Path) -> None:
    compiled = compile_repo(repo)
    plan = compiled.plan
    assert (plan.project, [view.name for view in plan.views]) == ("payments", ["card_days", "shop_risk"])
    card, shop = plan.views
    assert (card.keys, shop.keys) == (columns({"card_id": DType.INT64}), columns({"shop_id": DType.STRING}))
    assert [column.name for column in card.features] == ["payments_7d", "mean_amount_7d", "country"]
    assert (card.source.event_column, card.source.created_column) == ("event_time", "created")
    day = 86_400_000_000
    assert (card.ttl_us, card.delay_us, card.freshness_us) == (30 * day, 0, 2 * day)
    assert (shop.ttl_us, shop.delay_us, shop.freshness_us) == (0, day // 24, 0)
    assert shop.source.created_column is None
    assert plan.request == columns({"amount": DType.FLOAT64, "paid_at": DType.TIMESTAMP})
    assert [ref.label for ref in plan.service("fraud_features").features] == [
        "card_days__payments_7d",
        "card_days__mean_amount_7d",
        "card_days__country",
        "shop_risk__refund_share",
        "payment_time__hour",
        "payment_time__amount_ratio",
    ]
    assert FeatureRef(group="request", name="amount") in plan.transforms[0].inputs
    assert plan.transforms[0].source == (repo / "transforms.py").read_text()
    assert [spec.name for spec in compiled.models] == ["fraud"]


def test_6_1_compiling_again_and_elsewhere_gives_the_same_plan(repo: Path) -> None:
    first = compile_repo(repo).plan
    moved = repo.rename(repo.with_name("moved"))
    assert compile_repo(moved).plan.hash == first.hash


def test_compiling_leaves_no_trace(repo: Path) -> None:
    before, path = set(sys.modules), list(sys.path)
    compile_repo(repo)
    assert {"definitions", "models", "transforms"}.isdisjoint(set(sys.modules) - before)
    assert sys.path == path
    assert sorted(item.name for item in repo.iterdir()) == sorted(item.name for item in TEMPLATE.iterdir())


def test_an_edit_is_seen_at_once(repo: Path) -> None:
    first = compile_repo(repo).plan
    edit(repo, "% 24", "% 12", file="transforms.py")
    second = compile_repo(repo).plan
    assert second.transforms[0].hash != first.transforms[0].hash
    assert [view.hash for view in second.views] == [view.hash for view in first.views]


@pytest.mark.parametrize(
    ("tag", "delay_us"), [("90s", 90_000_000), ("15m", 900_000_000), ("2d", 172_800_000_000), ("5us", 5), ("0s", 0)]
)
def test_2_6_delays_are_lengths_of_time(repo: Path, tag: str, delay_us: int) -> None:
    edit(repo, DELAY, f'tags={{"skewless.delay": "{tag}"}},')
    assert compile_repo(repo).plan.view("shop_risk").delay_us == delay_us


def test_renamed_columns_and_tombstones_are_compiled(repo: Path) -> None:
    source = 'FileSource(path="data/shop_risk.parquet", timestamp_field="event_time"'
    edit(repo, source, source + ', field_mapping={"share of": "refund_share"}')
    edit(repo, DELAY, 'tags={"skewless.tombstone": "gone"},')
    plan_source = compile_repo(repo).plan.view("shop_risk").source
    assert plan_source.column("refund_share") == "share of"
    assert plan_source.tombstone_column == "gone"


def test_one_object_under_two_names_is_one(repo: Path) -> None:
    append(repo, "\nalias = card_days\nagain = fraud_features\n")
    compiled = compile_repo(repo)
    assert [service.name for service in compiled.plan.services] == ["fraud_features"]
    assert len(compiled.feast_objects) == len({id(one) for one in compiled.feast_objects})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (COUNTRY, COUNTRY * 2, "'card_days': has two features with one name .got 'country'"),
        (COUNTRY, 'Field(name="Payments_7D", dtype=String),', "'card_days': has names that differ only in case"),
        (COUNTRY, 'Field(name="CARD_ID", dtype=String),', "'card_days': has names that differ only in case"),
        (COUNTRY, 'Field(name="__seq", dtype=String),', "has a reserved name .got '__seq'"),
        (COUNTRY, 'Field(name="country", dtype=Array(String)),', "'country': has a type that cannot be served"),
        (PYTHON, PANDAS, "'payment_time': computes with pandas.*mode='pandas'.*numpy"),
        (DELAY, 'tags={"skewless.dealy": "1h"},', "'shop_risk' tag: is unknown .got 'skewless.dealy'.*skewless.delay"),
        (DELAY, 'tags={"skewless.delay": "1 hour"},', "'skewless.delay': is not a duration .got '1 hour'.*15m"),
        (DELAY, 'tags={"skewless.delay": "-1h"},', "is not a duration"),
        ("shop = Entity", "_x = shop_entity = None\nshops = [Entity", "SYNTAX"),
        ("features=[card_days, shop_risk, payment_time]", "features=[]", "'fraud_features': has no feature"),
        ("[card_days, shop_risk, payment_time]", "[card_days, card_days]", "has two features with one name"),
        (
            "[card_days, shop_risk, payment_time]",
            '[card_days.with_join_key_map({"card_id": "other_id"})]',
            "renames join keys, which is not supported",
        ),
        (
            "[payment, card_days]",
            "[payment, twin, card_days]",
            "'payment_time': has two inputs with one name .got 'amount'",
        ),
    ],
)
def test_a_definition_that_cannot_be_right_is_refused(repo: Path, old: str, new: str, message: str) -> None:
    edit(repo, "import Float64", "import Array, Float64")
    edit(repo, "payment_time = ", TWIN + "payment_time = ")
    edit(repo, old, new)
    with pytest.raises(DefinitionError, match=r"definitions.py:\d+" if message == "SYNTAX" else message):
        compile_repo(repo)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SECOND % ("second", 'Entity(name="ghost", join_keys=["g"], value_type=ValueType.INT64)', X),
            "names an entity that .*got 'ghost'",
        ),
        (SECOND % ("request", "shop", f"{SHOP_KEY}, {X}"), "'request': has a reserved name"),
        (SECOND % ("shop_risk", "shop", f"{SHOP_KEY}, {X}"), "'shop_risk': is defined twice"),
        (SECOND % ("second", "shop", SHOP_KEY), "'second': has no feature"),
        (
            'other = Entity(name="other", join_keys=["shop_id"], value_type=ValueType.INT64)\n'
            + SECOND % ("second", "other", f'Field(name="shop_id", dtype=Int64), {X}'),
            "key 'shop_id': has two types.*got 'shop_id string and shop_id int64'",
        ),
        (
            MORE % ("taken", "card_id"),
            "request field 'card_id': has the name of a join key",
        ),
        (
            MORE % ("other", "amount"),
            "request field 'amount': is declared with two types .got 'float64 and int64'",
        ),
    ],
)
def test_an_added_definition_that_cannot_be_right_is_refused(repo: Path, text: str, message: str) -> None:
    append(repo, text)
    with pytest.raises(DefinitionError, match=message):
        compile_repo(repo)


def test_a_service_may_not_name_a_view_that_is_not_at_the_top(repo: Path) -> None:
    edit(repo, "fraud_features = ", "hidden = [card_days]\ndel card_days\nfraud_features = ")
    edit(repo, "features=[card_days, shop_risk, payment_time]", "features=[hidden[0], shop_risk]")
    with pytest.raises(DefinitionError, match=r"'fraud_features': names a view that .*got 'card_days'"):
        compile_repo(repo)


def test_bytes_in_a_model_are_refused(repo: Path) -> None:
    edit(repo, COUNTRY, 'Field(name="country", dtype=Bytes),')
    edit(repo, "import Float64", "import Bytes, Float64")
    with pytest.raises(DefinitionError, match="'fraud' feature 'card_days__country': is of type bytes"):
        compile_repo(repo)


def test_a_model_of_an_unknown_service_is_refused(repo: Path) -> None:
    edit(repo, 'service="fraud_features"', 'service="frauds"', file="models.py")
    with pytest.raises(DefinitionError, match=r"feature service: is unknown .got 'frauds'.*fraud_features"):
        compile_repo(repo)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"lightgbm"', '"forest"', r"algorithm: is not installed .got 'forest'.*lightgbm, xgboost.*skewless\[forest"),
        ('"lightgbm"', '"xgboost", task="ranking", group="fraud"', r"group: is neither a key .*'fraud'.*card_id"),
    ],
)
def test_an_algorithm_or_a_group_that_does_not_exist_is_refused(repo: Path, old: str, new: str, message: str) -> None:
    edit(repo, old, new, file="models.py")
    with pytest.raises(DefinitionError, match=message):
        compile_repo(repo)


@pytest.mark.parametrize("group", ["shop_id", "amount"])
def test_a_group_may_be_a_key_or_a_request_field(repo: Path, group: str) -> None:
    edit(repo, '"lightgbm"', f'"lightgbm", task="ranking", group="{group}"', file="models.py")
    assert compile_repo(repo).models[0].group == group


@pytest.mark.parametrize(
    ("file", "line", "text", "message"),
    [
        ("definitions.py", 3, "def broken(:", "invalid syntax"),
        ("definitions.py", 5, "raise ValueError('by hand')", "by hand"),
        ("definitions.py", 5, "import no_such_module", "no_such_module"),
        ("transforms.py", 2, "x = (", "was never closed"),
        ("transforms.py", 2, "1 / 0", "division by zero"),
        ("models.py", 2, "nothing.at_all", "nothing"),
    ],
)
def test_an_error_in_a_module_names_file_and_line(repo: Path, file: str, line: int, text: str, message: str) -> None:
    lines = (repo / file).read_text().splitlines()
    lines.insert(line - 1, text)
    (repo / file).write_text("\n".join(lines) + "\n")
    with pytest.raises(DefinitionError, match=rf"file {repo / file}:{line}: .*{message}"):
        compile_repo(repo)


@pytest.mark.parametrize("file", ["definitions.py", "feature_store.yaml"])
def test_a_missing_file_and_one_that_is_not_text_are_named(repo: Path, file: str) -> None:
    (repo / file).write_bytes(b"\xff\xfe\0")
    with pytest.raises(DefinitionError, match=f"^file {repo / file}: "):
        compile_repo(repo)
    (repo / file).unlink()
    with pytest.raises(DefinitionError, match=f"{file}: does not exist.*--repo DIR"):
        compile_repo(repo)


def test_5_1_a_transform_that_works_across_rows_is_refused(repo: Path) -> None:
    edit(repo, "amount / mean", "amount / np.nanmean(mean)", file="transforms.py")
    with pytest.raises(DefinitionError, match="transform 'payment_time' output 'amount_ratio': depends on other rows"):
        compile_repo(repo)


def test_5_1_a_transform_that_fails_is_refused(repo: Path) -> None:
    edit(repo, 'inputs["mean_amount_7d"]', 'inputs["mean"]', file="transforms.py")
    with pytest.raises(DefinitionError, match=r"transform 'payment_time': fails on .* with KeyError .got .*mean"):
        compile_repo(repo)


def test_5_1_a_transform_that_imports_more_than_numpy_is_refused(repo: Path) -> None:
    edit(repo, "import numpy as np", "import numpy as np\nimport time", file="transforms.py")
    with pytest.raises(DefinitionError, match=r"transform 'payment_time': imports more than numpy .got 'time'"):
        compile_repo(repo)


def check_refused(planner: Planner, error: type[SkewlessError], message: str) -> None:
    """Check that neither a dry run nor apply accepts the repo, and that nothing was left behind."""
    with pytest.raises(error, match=message):
        planner.plan()
    with pytest.raises(error, match=message):
        planner.apply(NOW)
    assert not planner.state.folder.exists()


def test_a_column_that_the_source_lacks_is_named(planner: Planner) -> None:
    edit(planner.repo, COUNTRY, 'Field(name="land", dtype=String),')
    check_refused(planner, SourceError, "source of view 'card_days': has no such column .got 'land'.*it has card_id")


def test_a_column_of_another_type_is_named(planner: Planner) -> None:
    edit(planner.repo, COUNTRY, 'Field(name="country", dtype=Float64),')
    check_refused(planner, SourceError, "column 'country': does not fit the declared type float64 .got 'VARCHAR'")


def test_what_is_not_there_yet_is_named_and_checked_once_it_is(planner: Planner) -> None:
    away = [planner.repo / "data" / f"{name}.parquet" for name in ("shop_risk", "payments")]
    for file in away:
        file.rename(file.with_suffix(".away"))
    for report in (planner.plan(), planner.apply(1)):
        view, labels = report.notes
        assert view.startswith("source of view 'shop_risk' has no file yet: put it at 'data/shop_risk.parquet'")
        assert labels.startswith("label table of model 'fraud' has no file yet: put it at 'data/payments.parquet'")
    for file in away:
        file.with_suffix(".away").rename(file)
    assert planner.plan().notes == []
    edit(planner.repo, COUNTRY, 'Field(name="land", dtype=String),')
    with pytest.raises(SourceError, match="has no such column"):
        planner.plan()


def test_a_label_column_that_is_not_there_is_named(planner: Planner) -> None:
    edit(planner.repo, 'label="fraud"', 'label="frod"', file="models.py")
    check_refused(planner, SourceError, "label table of model 'fraud': has no such column .got 'frod'")


def test_apply_puts_in_force_what_plan_said(planner: Planner) -> None:
    dry = planner.plan()
    assert not planner.state.folder.exists()
    assert [(change.action, change.kind, change.name) for change in dry.changes] == [
        ("add", "view", "card_days"),
        ("add", "view", "shop_risk"),
        ("add", "request field", "amount"),
        ("add", "request field", "paid_at"),
        ("add", "transform", "payment_time"),
        ("add", "service", "fraud_features"),
        ("add", "model", "fraud"),
    ]
    assert planner.apply(NOW) == replace(dry, applied=True)
    assert planner.plan().changes == []
    edit(planner.repo, DELAY, 'tags={"skewless.delay": "2h"},')
    (change,) = planner.plan().changes
    assert change_lines(change) == ["~ view shop_risk", "    ~ delay 1 h -> 2 h"]


def test_what_is_compiled_is_what_feast_registers(repo: Path) -> None:
    compiled: CompiledRepo = compile_repo(repo)
    names = {one.name for one in compiled.feast_objects}
    assert names == {"card", "shop", "card_days", "shop_risk", "payment_time", "fraud_features"}
