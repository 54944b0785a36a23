"""Tokens: which are accepted, what they allow, how long they are remembered, and which settings are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from plugins.oidc.tests.token_desk import EC, GOOD, NOW_S, RSA, SECOND, STRANGER, URL, TokenDesk
from skewless.contract.errors import AccessError, DefinitionError
from skewless.contract.settings import Settings
from skewless.infra.platform.access.api_keys import KeyStore
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.serving.access.gate import KeyAccess
from skewless_oidc import tokens as tokens_module
from skewless_oidc.provider_keys import Issuer
from skewless_oidc.tokens import ALGORITHMS, TokenRules
from tests.servers.identity_provider import AUDIENCE


@pytest.fixture
def desk() -> TokenDesk:
    return TokenDesk()


@pytest.mark.parametrize("kid", ["ec", "rsa"])
@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "application/at+JWT"])
def test_a_good_token_names_its_caller(desk: TokenDesk, kid: str, typ: str | None) -> None:
    caller = desk.caller(desk.sign(kid, {} if typ is None else {"typ": typ}))
    assert (caller.name, repr(caller), caller.scopes, caller.models) == ("web", "token 'web'", {"predict"}, None)


def test_every_allowed_algorithm_works_and_no_other() -> None:
    makers: dict[str, Callable[[], Any]] = {
        "ES256": lambda: EC,
        "ES384": lambda: ECKey.generate_key("P-384"),
        "ES512": lambda: ECKey.generate_key("P-521"),
        "Ed25519": lambda: OKPKey.generate_key("Ed25519"),
    }
    for algorithm in ALGORITHMS:
        desk = TokenDesk(rules={"algorithms": (algorithm,)})
        key = makers.get(algorithm, lambda: RSA)()
        desk.provider.keys, desk.provider.published = {"k": key}, ["k"]
        token = jwt.encode(
            {"alg": algorithm}, desk.provider.claims(NOW_S), key, algorithms=[algorithm], default_type=None
        )
        assert desk.caller(token).name == "web"
        assert (
            TokenDesk(rules={"algorithms": tuple(set(ALGORITHMS) - {algorithm})}).problem(token)
            == "has a forbidden algorithm"
        )


@pytest.mark.parametrize(
    ("claims", "last_us", "next_us", "says"),
    [
        ({"exp": NOW_S}, (NOW_S + 30) * SECOND - 1, (NOW_S + 30) * SECOND, "has expired"),
        ({"nbf": NOW_S, "exp": NOW_S + 9}, (NOW_S - 30) * SECOND, (NOW_S - 30) * SECOND - 1, "is not valid yet"),
    ],
)
def test_the_leeway_has_an_edge_for_new_and_for_remembered_tokens(
    desk: TokenDesk, claims: dict[str, Any], last_us: int, next_us: int, says: str
) -> None:
    token = desk.sign(**claims)
    desk.now_us = next_us
    assert desk.problem(token) == says
    desk.now_us = last_us
    assert desk.caller(token).name == "web"
    desk.now_us = next_us
    assert desk.problem(token) == says


def test_a_clock_that_steps_changes_what_is_valid_at_once(desk: TokenDesk) -> None:
    token = desk.sign(nbf=NOW_S)
    told = []
    for step_s in (0, 400, 0, -400, 0):
        desk.now_us = (NOW_S + step_s) * SECOND
        try:
            told.append(desk.caller(token).name)
        except AccessError as error:
            told.append(error.problem)
    assert told == ["web", "has expired", "web", "is not valid yet", "web"]


def test_a_header_with_other_keys_is_ignored_if_the_signature_is_the_issuers(desk: TokenDesk) -> None:
    header = {"jku": "https://evil.example", "x5u": "https://evil.example", "jwk": STRANGER.as_dict(private=False)}
    assert desk.caller(desk.sign(header={**header, "later": 1})).name == "web"


def test_without_an_id_a_single_key_is_enough(desk: TokenDesk) -> None:
    desk.provider.published = ["ec"]
    assert desk.caller(desk.sign(None)).name == "web"


def test_a_key_of_one_algorithm_is_not_used_for_another() -> None:
    desk = TokenDesk(rules={"algorithms": ("PS256", "RS256")})
    key = RSAKey.import_key({**RSA.as_dict(private=True), "alg": "PS256", "kid": "ps"})
    desk.provider.keys, desk.provider.published = {"ps": key}, ["ps"]
    token = jwt.encode({"alg": "RS256", "kid": "ps"}, desk.provider.claims(NOW_S), RSA)
    assert desk.problem(token) == "has another algorithm than its key"


def test_one_issuers_key_does_not_sign_for_another(desk: TokenDesk) -> None:
    other = "https://other.example"
    both = TokenDesk(rules={"issuers": (Issuer(url=URL), Issuer(url=other))})
    assert both.problem(both.sign(iss=other)) == "cannot be verified, because the keys of its issuer are unavailable"
    assert desk.problem(desk.sign(iss=other)) == "is of an unknown issuer"


def test_a_verified_token_is_remembered_and_forgotten_with_a_removed_key(desk: TokenDesk) -> None:
    token = desk.sign()
    caller = desk.caller(token)
    desk.provider.published = []
    assert desk.caller(token) is caller
    desk.verifier._forget()
    assert "keys of its issuer are unavailable" in desk.problem(token)


def test_only_good_tokens_are_remembered_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "_MAX_REMEMBERED", 50)
    desk = TokenDesk(rules={"rate": 5.0})
    for i in range(120):
        desk.caller(desk.sign(sub=f"web{i}"))
        desk.problem(desk.sign(sub=f"web{i}", aud="x"))
        desk.problem(desk.sign(exp=NOW_S - 60, jti=str(i)))
    remembered = desk.verifier._remembered
    assert (len(remembered), len(desk.verifier._buckets)) == (50, 50)
    # A hash and the caller's parts, but no token.
    size = sum(sys.getsizeof(key) + sys.getsizeof(caller) for key, caller in remembered.items())
    assert size / len(remembered) < 400


def test_threads_may_verify_at_once(monkeypatch: pytest.MonkeyPatch, desk: TokenDesk) -> None:
    monkeypatch.setattr(tokens_module, "_MAX_REMEMBERED", 5)
    tokens = [desk.sign(sub=f"web{i}") for i in range(12)]
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda i: desk.caller(tokens[i % 12]).name, range(600)))
    assert names == [f"web{i % 12}" for i in range(600)]
    assert len(desk.verifier._remembered) == 5


def test_a_flood_of_unknown_ids_is_refused_without_a_wait(desk: TokenDesk) -> None:
    for i in range(500):
        assert desk.problem(desk.provider.sign("ec", GOOD, {"kid": f"k{i}"})) == "is signed with an unknown key"
    assert desk.keys.requests == 500  # the keys themselves limit the fetches, see test_provider_keys


@pytest.mark.parametrize(
    ("rules", "claims", "scopes", "models"),
    [
        ({}, {"scope": "predict as_of root"}, {"predict", "as_of"}, None),
        ({}, {"scope": ["feedback", 7, "admin"]}, {"feedback", "admin"}, None),
        ({}, {"scope": None}, set(), None),
        ({"scope_claim": "realm_access.roles"}, {"realm_access": {"roles": ["admin"]}}, {"admin"}, None),
        ({"scope_claim": "https://shop.com/roles"}, {"https://shop.com/roles": ["admin"]}, {"admin"}, None),
        ({"scope_claim": "a.b"}, {"a": ["b"]}, set(), None),
        (
            {"scope_names": {"ml-admins": "admin", "p": "predict"}},
            {"scope": "ml-admins predict p"},
            {"admin", "predict"},
            None,
        ),
        ({"model_claim": "models"}, {"models": ["fraud", "../x", 7]}, {"predict"}, {"fraud"}),
        ({"model_claim": "models"}, {"models": "fraud pricing"}, {"predict"}, {"fraud", "pricing"}),
        ({"model_claim": "models"}, {"models": ["*"]}, {"predict"}, None),
        ({"model_claim": "models"}, {}, {"predict"}, set()),
        ({"model_claim": "models"}, {"models": {"fraud": 1}}, {"predict"}, set()),
    ],
)
def test_claims_say_scopes_and_models(
    rules: dict[str, Any], claims: dict[str, Any], scopes: set[str], models: set[str] | None
) -> None:
    desk = TokenDesk(rules=rules)
    caller = desk.caller(desk.sign(**claims))
    assert (caller.scopes, caller.models) == (scopes, models)


def test_all_tokens_of_a_subject_share_its_rate() -> None:
    desk = TokenDesk(rules={"rate": 0.5})
    callers = [desk.caller(desk.sign(sub=sub, jti=str(i))) for i, sub in enumerate(("web", "web", "other"))]
    waits = [caller.bucket.take(1.0) for caller in callers if caller.bucket is not None]
    assert (waits[0], waits[1] > 0.0, waits[2]) == (0.0, True, 0.0)
    assert "token 'web': has sent more than 0.5 requests per second" in str(callers[1].rate_error(waits[1]))


@pytest.fixture
def access(tmp_path: Path, desk: TokenDesk) -> KeyAccess:
    return KeyAccess(KeyStore(ProjectState(tmp_path)), lambda: desk.now_us, tokens=desk.verifier)


@pytest.mark.parametrize("header", [b"authorization", b"x-api-key"])
def test_a_token_is_sent_as_a_key_is(desk: TokenDesk, access: KeyAccess, header: bytes) -> None:
    value = desk.sign().encode()
    sent = [(header, value if header == b"x-api-key" else b"Bearer " + value)]
    assert access.allow(sent, "predict").name == "web"
    with pytest.raises(AccessError, match=r"token 'web': does not have the scope 'admin'.*docs/identity\.md"):
        access.allow(sent, "admin")
    with pytest.raises(AccessError, match="API key: is unknown"):
        access.allow([(header, b"Bearer sk_web_" + b"A" * 43 if header != b"x-api-key" else b"sk_web_A")], None)
    assert access.has_valid_key()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"token_audience": None}, "'token_audience': is missing"),
        (
            {"token_algorithms": ("RS256", "none")},
            r"'token_algorithms': has an algorithm that is not allowed \(got \['none'\]",
        ),
        ({"token_algorithms": ("HS256",)}, "'token_algorithms': has an algorithm that is not allowed"),
        ({"token_algorithms": ()}, "'token_algorithms': is empty"),
        ({"token_issuers": ("http://id.shop.example",)}, "'token_issuers': is not a safe URL"),
        ({"token_keys_url": "http://id.shop.example/keys"}, "'token_keys_url': is not a safe URL"),
        ({"token_issuers": (URL, f"{URL}/b"), "token_keys_url": URL}, "'token_keys_url': is of one issuer"),
        ({"token_scope_names": {"a": "root"}}, r"'token_scope_names': has an unknown scope \(got 'root'\)"),
    ],
)
def test_settings_that_cannot_be_safe_are_refused(settings: dict[str, Any], says: str) -> None:
    good = {"token_issuers": (URL,), "token_audience": AUDIENCE}
    assert TokenRules.of(Settings(**good)).audience == AUDIENCE
    with pytest.raises(DefinitionError, match=says):
        TokenRules.of(Settings(**{**good, **settings}))
