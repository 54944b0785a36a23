"""docs/traces.md: every variable that is read, every stage and every reason, and the settings of its example."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from skewless_otel.settings import Sampling, read_otel_settings
from tests.docs.pages import ROOT, blocks, names, page, section, table
from tests.nightly.integration.serving.test_traces import STAGES


class ReadVariables(Mapping[str, str]):
    """An environment with an endpoint, which notes the variables that are read."""

    def __init__(self) -> None:
        self._values = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_METRICS_EXPORTER": "otlp"}
        self._values["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://collector:4318"
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def test_every_variable_is_documented() -> None:
    variables = ReadVariables()
    read_otel_settings(variables)
    common = {re.sub("OTLP_(TRACES|METRICS)_", "OTLP_", name) for name in variables.read}
    rows = table(section(page("traces.md"), "Variables"), "variable", "default", "meaning")
    assert {names(row["variable"])[0] for row in rows} == common


def test_the_defaults_are_those_of_the_code() -> None:
    rows = table(section(page("traces.md"), "Variables"), "variable", "default", "meaning")
    default = {names(row["variable"])[0]: names(row["default"])[0] for row in rows if names(row["default"])}
    # An exporter's default depends on the endpoint.
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        del default[name]
    on = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp"}
    assert read_otel_settings({**on, **default}) == read_otel_settings(on)


def test_the_example_sets_what_it_says() -> None:
    block = blocks(page("traces.md"), "sh")[0]
    exported = dict(re.findall(r"^export (\w+)=(\S+)$", block, re.MULTILINE))
    settings = read_otel_settings(exported)
    assert settings.traces is not None
    assert settings.traces.url == "http://collector:4318/v1/traces"
    assert settings.sampling == Sampling(rate=0.01, follows_parent=True)
    assert settings.resource["service.name"] == "fraud-api"


def test_every_stage_is_documented() -> None:
    rows = table(section(page("traces.md"), "Spans"), "span", "time")
    documented = [names(row["span"])[0] for row in rows]
    assert [name for name in documented if name not in {"wait", "log"}] == STAGES
    sources = "".join(Path(ROOT, name).read_text(encoding="utf-8") for name in (
        "serving/http/predict_route.py", "serving/prediction/evaluator.py"
    ))  # fmt: skip
    assert set(re.findall(r"(?:add|open|add_stage)\(\"(\w+)\"", sources)) == set(documented)


def test_every_reason_of_a_lost_span_is_documented() -> None:
    source = Path(ROOT, "plugins/otel/src/skewless_otel/traces.py").read_text(encoding="utf-8")
    reasons = set(re.findall(r"_on_drop\(\w+, \"(\w+)\"\)", source))
    (row,) = (row for row in table(page("metrics.md"), "metric", "type", "labels", "meaning")
              if "skewless_spans_dropped_total" in row["metric"])  # fmt: skip
    assert reasons == set(names(row["meaning"]))
    assert reasons <= set(names(section(page("traces.md"), "If the collector is slow or down")))
