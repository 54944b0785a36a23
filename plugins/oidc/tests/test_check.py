"""The check of each run of `make test`: a server of the settings lets a token of the provider in, and no other."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from skewless.contract.errors import AccessError, DefinitionError
from skewless.contract.settings import Settings
from skewless.infra.platform.access.api_keys import KeyStore
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.serving.access.gate import open_access
from tests.servers.identity_provider import AUDIENCE, opened_provider


def test_a_token_of_the_provider_lets_in_and_one_for_another_audience_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeyStore(ProjectState(tmp_path / "state"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    with opened_provider(tmp_path) as provider:
        settings = Settings(auth="required", token_issuers=(provider.url,), token_audience=AUDIENCE)
        with closing(open_access(settings, store, lambda: time.time_ns() // 1_000)) as access:
            good, other = (
                provider.sign("first", provider.claims(time.time(), **claims)).encode() for claims in ({}, {"aud": "x"})
            )
            assert access.problems() == {}
            assert access.allow([(b"x-api-key", good)], "predict").name == "web"
            with pytest.raises(AccessError, match="is for another audience"):
                access.allow([(b"x-api-key", other)], "predict")
    with pytest.raises(DefinitionError, match="'token_audience': is missing"):
        open_access(Settings(token_issuers=(provider.url,)), store, lambda: 0)
