"""Settings: the file, then the environment, then what the caller says."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import SETTINGS_FILE, Settings, load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SKEWLESS_{name.upper()}", raising=False)


def write(repo: Path, text: str) -> Path:
    (repo / SETTINGS_FILE).write_text(text)
    return repo


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    assert settings == Settings()
    assert (settings.redis_url, settings.state, settings.clock) == (None, ".skewless", "system")


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_changes_nothing(tmp_path: Path, text: str) -> None:
    assert load_settings(write(tmp_path, text)) == Settings()


def test_the_callers_word_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "port: 1\nthreads: 1\nmax_batch: 1\n")
    monkeypatch.setenv("SKEWLESS_THREADS", "2")
    monkeypatch.setenv("SKEWLESS_MAX_BATCH", "2")
    settings = load_settings(tmp_path, max_batch=3)
    assert (settings.port, settings.threads, settings.max_batch) == (1, 2, 3)


def test_a_list_in_the_environment_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_REQUIRED_MODELS", '["fraud"]')
    assert load_settings(tmp_path).required_models == ("fraud",)
    monkeypatch.setenv("SKEWLESS_REQUIRED_MODELS", "fraud")
    with pytest.raises(DefinitionError, match="SKEWLESS_REQUIRED_MODELS: is not a JSON list"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 80", "setting 'prot'.*not permitted"),
        ("port: 70000", "setting 'port'.*65535.*70000"),
        ("port: many", "setting 'port'.*integer.*'many'"),
        ("log_flush_seconds: 0", "setting 'log_flush_seconds'.*greater than 0"),
        ("threads: -1", "setting 'threads'"),
        ("workers: 0", "setting 'workers'.*greater than or equal to 1"),
        ("auth: on", "setting 'auth'.*'auto', 'required' or 'off'"),
        ("auth: maybe", "setting 'auth'.*'maybe'"),
        ("body_bytes: 0", "setting 'body_bytes'.*greater than 0"),
        ("header_bytes: 1023", "setting 'header_bytes'.*greater than or equal to 1024"),
        ("max_in_flight: 0", "setting 'max_in_flight'.*greater than 0"),
        ("feature_timeout_ms: 0", "setting 'feature_timeout_ms'.*greater than 0"),
        ("deadline_ms: -1", "setting 'deadline_ms'.*greater than or equal to 0"),
        ("feature_cache_ms: -0.1", "setting 'feature_cache_ms'.*greater than or equal to 0"),
        ("prediction_cache: -1", "setting 'prediction_cache'.*greater than or equal to 0"),
        ("keep_versions: 0", "setting 'keep_versions'.*greater than or equal to 1"),
        ("drain_seconds: -1", "setting 'drain_seconds'.*greater than or equal to 0"),
        ("breaker_failures: 0", "setting 'breaker_failures'.*greater than or equal to 1"),
        ("breaker_seconds: 0", "setting 'breaker_seconds'.*greater than 0"),
        ("- port", "file .*skewless.yaml: is not a mapping of settings"),
        ("port", "file .*skewless.yaml: is not a mapping of settings"),
        ("a: [", "file .*skewless.yaml: is not YAML"),
    ],
)
def test_a_setting_that_cannot_be_right_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        load_settings(write(tmp_path, text))


@pytest.mark.parametrize("text", ["auth: off", "auth: 'off'", 'auth: "off"'])
def test_a_bare_off_is_the_word_and_not_a_truth_value(tmp_path: Path, text: str) -> None:
    assert load_settings(write(tmp_path, text)).auth == "off"


@pytest.mark.parametrize("text", ["feature_timeout_ms: .inf", "deadline_ms: .inf", "drain_seconds: .inf"])
def test_a_time_is_finite(tmp_path: Path, text: str) -> None:
    with pytest.raises(DefinitionError, match=r"setting '\w+'.*finite"):
        load_settings(write(tmp_path, text))


def test_a_wrong_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_PORT", "http")
    with pytest.raises(DefinitionError, match=r"setting 'port'.*SKEWLESS_"):
        load_settings(tmp_path)


def test_a_variable_that_is_no_list_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_TRUSTED_KEYS", "abc")
    with pytest.raises(DefinitionError, match=r"variable SKEWLESS_TRUSTED_KEYS: is not a JSON list"):
        load_settings(tmp_path)


def test_a_mapping_in_the_environment_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_TOKEN_SCOPE_NAMES", '{"Scores.Predict": "predict"}')
    assert load_settings(tmp_path).token_scope_names == {"Scores.Predict": "predict"}
    monkeypatch.setenv("SKEWLESS_TOKEN_SCOPE_NAMES", "predict")
    with pytest.raises(DefinitionError, match=r"SKEWLESS_TOKEN_SCOPE_NAMES: is not a JSON object"):
        load_settings(tmp_path)


def test_a_wrong_value_of_a_url_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        load_settings(write(tmp_path, "redis_url: [redis://:secret@host]"))
    assert "secret" not in str(caught.value)
    assert "secret" not in str(caught.value.as_dict())


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(Settings(), "port", 5)  # noqa: B010 - a type checker refuses the plain way


PATHS = (
    "clock: file:moved/clock",
    "redis_url: rediss://u:p%2F%40w@h:1/0?ssl_ca_certs=ca.pem&ssl_keyfile=/k.pem&socket_timeout=3",
    'kafka: \'{"ssl.ca.location": "ca.pem", "ssl.key.location": "/k.pem", "security.protocol": "SSL"}\'',
)


def test_files_are_relative_to_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, repo = tmp_path / "elsewhere", tmp_path / "a b"
    elsewhere.mkdir()
    repo.mkdir()
    write(repo, "\n".join(PATHS))
    for folder, place in ((elsewhere, repo), (repo, Path()), (tmp_path, Path("a b"))):
        monkeypatch.chdir(folder)
        settings = load_settings(place)
        assert settings.clock == f"file:{repo}/moved/clock"
        full = quote(f"{repo}/ca.pem")
        assert settings.redis_url == (
            f"rediss://u:p%2F%40w@h:1/0?ssl_ca_certs={full}&ssl_keyfile=/k.pem&socket_timeout=3"
        )
        assert json.loads(settings.kafka) == {
            "ssl.ca.location": f"{repo}/ca.pem",
            "ssl.key.location": "/k.pem",
            "security.protocol": "SSL",
        }


@pytest.mark.parametrize("text", ["not JSON", "[1]", '{"ssl.ca.location": "probe"}', '{"ssl.ca.location": 7}'])
def test_a_kafka_setting_without_files_stays_as_it_is(tmp_path: Path, text: str) -> None:
    assert load_settings(tmp_path, kafka=text).kafka == text


def test_a_variable_and_an_argument_are_relative_to_the_project_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_CLOCK", "file:c")
    assert load_settings(tmp_path).clock == f"file:{tmp_path}/c"
    assert load_settings(tmp_path, clock="file:d").clock == f"file:{tmp_path}/d"
    assert load_settings(tmp_path, clock="file:~/d").clock == f"file:{Path.home()}/d"
