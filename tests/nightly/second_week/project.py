"""The project's files, rendered from its declared definitions, and the definitions that it begins with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.nightly.second_week.declared import (
    Aggregate,
    Declared,
    DeclaredModel,
    Latest,
    Service,
    Source,
    Transform,
    Window,
)

NOW = 1_768_478_400_000_000  # 2026-01-15 12:00 UTC
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
USERS = [f"u{i:02d}" for i in range(16)]
SHOPS = list(range(6))
ENTITY_KEYS = {"user": "STRING", "shop": "INT64"}
FACTS = {"level": "Float64", "tier": "Int64", "vip": "Bool", "born": "UnixTimestamp", "score": "Float64"}

CLICKS = Source(
    name="clicks",
    time="clicked_at",
    columns=(
        ("user", "string"),
        ("shop", "int64"),
        ("amount", "float64"),
        ("qty", "int64"),
        ("flag", "bool"),
        ("item", "string"),
        ("click_id", "string"),
    ),
    id_column="click_id",
    scales=(("amount", 2),),
)
VISITS = Source(
    name="visits",
    time="visited_at",
    columns=(("user", "string"), ("dwell", "float32"), ("pages", "int32"), ("page", "string")),
)

CONFIG = """\
project: week
provider: local
registry: .skewless/registry.db
offline_store:
  type: skewless_feast.offline_store.SkewlessOfflineStore
online_store:
  type: skewless_feast.online_store.SkewlessOnlineStore
batch_engine:
  type: skewless_feast.engine.SkewlessComputeEngine
entity_key_serialization_version: 3
"""
_OFF = ("validate", "parity", "replay", "freshness", "drift", "quality", "triggers", "housekeeping")
_HEAD = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, OnDemandFeatureView, PushSource
from feast import RequestSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Bool, Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.INT64)
ask = RequestSource(name="ask", schema=[Field(name="x", dtype=Float64), Field(name="at", dtype=UnixTimestamp)])
"""
_ASKED = '''\
"""What only the caller knows; the part of every service that never changes."""

import numpy as np


def asked(inputs):
    at = inputs["at"]
    if isinstance(at, list):
        at = [moment.replace(tzinfo=None) if hasattr(moment, "tzinfo") else moment for moment in at]
    at = np.asarray(at, dtype="datetime64[us]").astype(np.int64)
    x = np.asarray(inputs["x"], dtype=np.float64)
    outputs = {"x_twice": x * 2.0, "hour": (at // 3_600_000_000 % 24).astype(np.float64)}
    return {name: column.tolist() for name, column in outputs.items()} if isinstance(inputs["x"], list) else outputs
'''
_SUMS = ("sum", "mean", "var", "std")
_FORMULAS = {
    "ratio": "x / (np.abs(feature) + {number!r})",
    "shift": "feature * {number!r} + x",
    "missing": "np.isnan(feature).astype(np.float64)",
    "age": '(inputs["at"] - feature) / 1e6',
}


def settings() -> str:
    """Return the text of ``skewless.yaml``."""
    lines = ["clock: file:clock", "threads: 1", "port: 0", "stream_partitions: 3", "second_runtime: none"]
    lines += ["log_flush_seconds: 1.0", "reload_seconds: 0.2", 'materialize_cron: "*/15 * * * *"']
    return "\n".join([*lines, *(f'{name}_cron: "off"' for name in _OFF)]) + "\n"


def first() -> Declared:
    """Return the definitions that the project begins with."""
    user_clicks = (
        Aggregate(name="amount_mean", column="amount", function="mean", window_s=HOUR_S),
        Aggregate(name="amount_std", column="amount", function="std", window_s=7 * DAY_S),
        Aggregate(name="clicks", column="user", function="count", window_s=DAY_S),
        Aggregate(name="items", column="item", function="count_distinct", window_s=30 * DAY_S),
        Aggregate(name="big_ones", column="big", function="sum", window_s=6 * HOUR_S),
    )
    shop_clicks = (
        Aggregate(name="shop_amount", column="amount", function="sum", window_s=DAY_S),
        Aggregate(name="shop_qty", column="qty", function="max", window_s=6 * HOUR_S, hop_s=600),
        Aggregate(name="shop_last", column="amount", function="last", window_s=7 * DAY_S),
        Aggregate(name="shop_recent", column="amount", function="last", window_s=DAY_S, k=4),
    )
    user_visits = (
        Aggregate(name="dwell_sum", column="dwell", function="sum", window_s=DAY_S),
        Aggregate(name="pages_first", column="pages", function="first", window_s=12 * HOUR_S),
    )
    facts = (("level", "level"), ("tier", "tier"))
    return Declared(
        sources=(CLICKS, VISITS),
        windows=(
            Window(
                name="user_clicks", source=CLICKS, key="user", aggregates=user_clicks, number="amount", threshold=50.0
            ),
            Window(name="shop_clicks", source=CLICKS, key="shop", aggregates=shop_clicks),
            Window(name="user_visits", source=VISITS, key="user", aggregates=user_visits),
        ),
        latest=(Latest(name="facts", table="facts", key="user", features=facts, ttl_s=3 * DAY_S),),
        transforms=(
            Transform(
                name="mix", view="user_clicks", feature="amount_mean", formula="ratio", number=1.5, output="mixed"
            ),
        ),
        services=(
            Service(name="all", views=("user_clicks", "shop_clicks", "user_visits", "facts"), transforms=("mix",)),
            Service(name="some", views=("shop_clicks", "user_clicks", "facts")),
        ),
        models=(
            DeclaredModel(name="buy", service="all", label="hit"),
            DeclaredModel(name="stay", service="some", label="hit"),
        ),
    )


def write(repo: Path, declared: Declared) -> None:
    """Write the definitions and models of a project, and remove modules that they no longer use."""
    files = {
        "definitions.py": _definitions(declared),
        "models.py": _models(declared),
        "asked.py": _ASKED,
        **{f"derive_{view.name}.py": _derive(view) for view in declared.windows if view.number},
        **{f"transform_{item.name}.py": _transform(item) for item in declared.transforms},
    }
    files[".feastignore"] = "\n".join([".skewless", *(name for name in files if name != "definitions.py")]) + "\n"
    for path in repo.glob("*.py"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        place = repo / name
        if not place.exists() or place.read_text() != text:
            place.write_text(text)


def _definitions(declared: Declared) -> str:
    modules = [f"import derive_{view.name}" for view in declared.windows if view.number]
    modules += [f"import transform_{item.name}" for item in declared.transforms]
    parts = ["import asked as asked_module", *modules, "", _HEAD]
    for part in (declared.sources, declared.windows, declared.latest, declared.transforms):
        parts += [_rendered(item) for item in part]
    asked = [("x_twice", "ask"), ("hour", "ask")]
    parts.append(_on_demand("asked", "[ask]", [name for name, _ in asked], "asked_module"))
    parts += [_service(service) for service in declared.services]
    return "\n".join(parts)


def _rendered(item: Source | Window | Latest | Transform) -> str:
    if isinstance(item, Source):
        return _source(item)
    if isinstance(item, Window):
        return _window(item)
    if isinstance(item, Latest):
        return _latest(item)
    return _on_demand(item.name, f"[ask, {item.view}]", [item.output], f"transform_{item.name}")


def _source(source: Source) -> str:
    tags = {"skewless.columns": ", ".join(f"{name} {kind}" for name, kind in source.columns), "skewless.dedupe": "90d"}
    if source.id_column:
        tags["skewless.event_id"] = source.id_column
    tags |= {f"skewless.scale.{name}": str(scale) for name, scale in source.scales}
    history = f'FileSource(path="data/{source.name}", timestamp_field="{source.time}")'
    return f'{source.name} = PushSource(name="{source.name}", batch_source={history}, tags={tags!r})\n'


def _window(view: Window) -> str:
    tags = {}
    if view.number:
        tags = {"skewless.inputs": view.number, "skewless.derived": "big bool, net float64"}
    if view.where:
        tags["skewless.where"] = view.where
    summed = {item.column for item in view.aggregates if item.function in _SUMS}
    if view.scale >= 0 and view.number in summed:
        tags[f"skewless.scale.{view.number}"] = str(view.scale)
    lines = [f"    {_aggregation(item)}," for item in view.aggregates]
    udf = f", udf=derive_{view.name}.derive" if view.number else ""
    return (
        f'{view.name} = StreamFeatureView(name="{view.name}", entities=[{view.key}], source={view.source.name},\n'
        f'    timestamp_field="{view.source.time}"{udf}, tags={tags!r}, aggregations=[\n' + "\n".join(lines) + "\n])\n"
    )


def _aggregation(item: Aggregate) -> str:
    slide = f", slide_interval=timedelta(seconds={item.hop_s})" if item.hop_s else ""
    return (
        f'Aggregation(column="{item.column}", function="{item.function}{f"_{item.k}" if item.k else ""}",'
        f' time_window=timedelta(seconds={item.window_s}){slide}, name="{item.name}")'
    )


def _latest(view: Latest) -> str:
    renamed = {column: name for name, column in view.features if name != column}
    fields = [f'Field(name="{view.key}", dtype=String)']
    fields += [f'Field(name="{name}", dtype={FACTS[column]})' for name, column in view.features]
    return (
        f'{view.name} = FeatureView(name="{view.name}", entities=[{view.key}], ttl=timedelta(seconds={view.ttl_s}),\n'
        f"    schema=[{', '.join(fields)}],\n"
        f'    source=FileSource(path="data/{view.table}", timestamp_field="event_time",\n'
        f'    created_timestamp_column="created", field_mapping={renamed!r}))\n'
    )


def _on_demand(name: str, sources: str, outputs: list[str], module: str) -> str:
    fields = ", ".join(f'Field(name="{output}", dtype=Float64)' for output in outputs)
    return (
        f'{name} = OnDemandFeatureView(name="{name}", sources={sources}, schema=[{fields}], mode="python",\n'
        f"    udf={module}.{name}, udf_string=Path({module}.__file__).read_text())\n"
    )


def _service(service: Service) -> str:
    names = ", ".join((*service.views, *service.transforms, "asked"))
    return f'{service.name}_features = FeatureService(name="{service.name}", features=[{names}])\n'


def _derive(view: Window) -> str:
    return (
        "import numpy as np\n\n\ndef derive(events):\n"
        f'    number = np.asarray(events["{view.number}"], dtype=np.float64)\n'
        f'    return {{"big": number > {view.threshold!r}, "net": number * {view.factor!r} - 1.25}}\n'
    )


def _transform(item: Transform) -> str:
    formula = _FORMULAS[item.formula].format(number=item.number)
    lists = "" if item.formula == "age" else '    if isinstance(inputs["x"], list):\n        output = output.tolist()\n'
    return (
        f"import numpy as np\n\n\ndef {item.name}(inputs):\n"
        '    x = np.asarray(inputs["x"], dtype=np.float64)\n'
        f'    feature = np.asarray(inputs["{item.feature}"], dtype=np.float64)\n'
        '    with np.errstate(all="ignore"):\n'
        f"        output = {formula}\n{lists}"
        f'    return {{"{item.output}": output}}\n'
    )


def _models(declared: Declared) -> str:
    head = "from datetime import timedelta\n\nfrom skewless import Gate, LabelSource, ModelSpec, Split\n\n"
    return head + "MODELS = [\n" + "".join(_specs(declared)) + "]\n"


def _specs(declared: Declared) -> Iterator[str]:
    for model in declared.models:
        yield (
            f'    ModelSpec(name="{model.name}", service="{model.service}", algorithm="lightgbm",\n'
            '        labels=LabelSource(path="data/labels.parquet", event_time="at", known_time="known",\n'
            f'            label="{model.label}"),\n'
            "        split=Split(test=timedelta(hours=12)), rounds="
            f'{model.rounds}, params={{"num_leaves": 4, "min_data_in_leaf": 5}},\n'
            '        gate=Gate(metric="auc", floor=0.0, tolerance=1.0), retrain="0 4 * * 1"),\n'
        )
