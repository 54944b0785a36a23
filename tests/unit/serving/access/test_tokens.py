"""Tokens: which are accepted, what they allow, and that no attack on them, on memory or on the provider works."""

from __future__ import annotations

import hmac
import json
import math
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from skewless.contract.errors import AccessError, DefinitionError, RateError
from skewless.contract.settings import Settings
from skewless.infra.access.api_keys import KeyStore
from skewless.infra.access.provider_keys import Issuer
from skewless.infra.storage.project_state import ProjectState
from skewless.serving.access import tokens as tokens_module
from skewless.serving.access.caller import Caller
from skewless.serving.access.gate import KeyAccess
from skewless.serving.access.rates import TokenBucket
from skewless.serving.access.tokens import ALGORITHMS, TokenRules, TokenVerifier
from tests.servers.identity_provider import AUDIENCE, Provider

NOW_S = 1_800_000_000
SECOND = 1_000_000
URL = "https://id.shop.example"
_EC, _RSA = ECKey.generate_key("P-256", {"kid": "ec"}), RSAKey.generate_key(2048, {"kid": "rsa"})


class KnownKeys:
    """The keys of the provider, in memory; counts the requests to fetch them again."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.requests = 0

    def get(self, issuer: str) -> list[Any]:
        provider = self.provider
        return [provider.keys[kid] for kid in provider.published] if issuer == provider.url else []

    def request_fetch(self, issuer: str) -> bool:
        assert issuer == self.provider.url
        self.requests += 1
        return True


@dataclass
class Desk:
    """A verifier with a clock, and the provider that it trusts."""

    provider: Provider = field(default_factory=lambda: Provider(url=URL))
    now_us: int = NOW_S * SECOND
    rules: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.provider.add_key("ec", _EC)
        self.provider.add_key("rsa", _RSA)
        rules = TokenRules(**{"issuers": (Issuer(url=URL),), "audience": AUDIENCE, "leeway_s": 30, **self.rules})
        self.verifier = TokenVerifier(
            rules, lambda: self.now_us, max_age_s=1.0, new_bucket=lambda _, rate: TokenBucket(rate)
        )
        self.keys = self.verifier.keys = KnownKeys(self.provider)  # type: ignore[assignment]

    def sign(self, kid: str | None = "ec", header: Mapping[str, Any] | None = None, **claims: Any) -> str:  # noqa: ANN401
        return self.provider.sign(kid, self.provider.claims(NOW_S, **claims), header)

    def caller(self, token: str | bytes) -> Caller:
        return self.verifier.get(token if isinstance(token, bytes) else token.encode())

    def problem(self, token: str | bytes) -> str:
        with pytest.raises(AccessError) as caught:
            self.caller(token)
        assert type(caught.value) is AccessError
        text = token if isinstance(token, str) else token.decode("latin-1")
        assert not any(part in str(caught.value) for part in text.split(".") if len(part) > 8)
        return caught.value.problem


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize("kid", ["ec", "rsa"])
@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "application/at+JWT"])
def test_a_good_token_names_its_caller(desk: Desk, kid: str, typ: str | None) -> None:
    caller = desk.caller(desk.sign(kid, {} if typ is None else {"typ": typ}))
    assert (caller.name, repr(caller), caller.scopes, caller.models) == ("web", "token 'web'", {"predict"}, None)


def test_every_allowed_algorithm_works_and_no_other() -> None:
    makers: dict[str, Callable[[], Any]] = {
        "ES256": lambda: _EC,
        "ES384": lambda: ECKey.generate_key("P-384"),
        "ES512": lambda: ECKey.generate_key("P-521"),
        "Ed25519": lambda: OKPKey.generate_key("Ed25519"),
    }
    for algorithm in ALGORITHMS:
        desk = Desk(rules={"algorithms": (algorithm,)})
        key = makers.get(algorithm, lambda: _RSA)()
        desk.provider.keys, desk.provider.published = {"k": key}, ["k"]
        token = jwt.encode(
            {"alg": algorithm}, desk.provider.claims(NOW_S), key, algorithms=[algorithm], default_type=None
        )
        assert desk.caller(token).name == "web"
        assert (
            Desk(rules={"algorithms": tuple(set(ALGORITHMS) - {algorithm})}).problem(token)
            == "has a forbidden algorithm"
        )


def encode(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(header: object, claims: object, signature: bytes = b"") -> str:
    return f"{encode(header)}.{encode(claims)}.{encode(signature)}"


def hmac_with_public_key(desk: Desk, key: Any) -> str:  # noqa: ANN401 - a key
    body = f"{encode({'alg': 'HS256', 'kid': 'rsa'})}.{encode(desk.provider.claims(NOW_S))}"
    return f"{body}.{encode(hmac.digest(key.as_pem(private=False), body.encode(), 'sha256'))}"


def resigned(desk: Desk, part: int) -> str:
    """Return a good token with one altered part."""
    parts = desk.sign().split(".")
    text = urlsafe_b64decode(parts[part] + "==")
    parts[part] = encode(text[:-1] + bytes([text[-1] ^ 1]) if part == 2 else text.replace(b"web", b"boss", 1))
    return ".".join(parts)


GOOD = Provider(url=URL).claims(NOW_S)
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})
ATTACKS: dict[str, tuple[Callable[[Desk], str | bytes], str]] = {
    "alg none": (lambda _: forged({"alg": "none"}, GOOD), "a forbidden algorithm"),
    "alg None": (lambda _: forged({"alg": "None", "kid": "ec"}, GOOD), "a forbidden algorithm"),
    "alg none with a signature": (lambda _: forged({"alg": "none", "kid": "ec"}, GOOD, b"x"), "a forbidden algorithm"),
    "no alg": (lambda _: forged({"kid": "ec"}, GOOD), "is malformed"),
    "alg of another kind": (lambda _: forged({"alg": ["ES256"], "kid": "ec"}, GOOD), "a forbidden algorithm"),
    "HS256 with the RSA public key": (lambda d: hmac_with_public_key(d, _RSA), "a forbidden algorithm"),
    "RS256 with an EC key": (lambda _: forged({"alg": "RS256", "kid": "ec"}, GOOD, b"x" * 64), "an invalid signature"),
    "ES256 with an RSA key": (
        lambda _: forged({"alg": "ES256", "kid": "rsa"}, GOOD, b"x" * 64),
        "an invalid signature",
    ),
    "a signature of zeros": (lambda _: forged({"alg": "ES256", "kid": "ec"}, GOOD, bytes(64)), "an invalid signature"),
    "no signature": (lambda _: forged({"alg": "ES256", "kid": "ec"}, GOOD), "an invalid signature"),
    "an altered payload": (lambda d: resigned(d, 1), "an invalid signature"),
    "an altered signature": (lambda d: resigned(d, 2), "an invalid signature"),
    "a stranger's key with our id": (
        lambda _: jwt.encode({"alg": "ES256", "kid": "ec"}, dict(GOOD), STRANGER),
        "an invalid signature",
    ),
    "a stranger's key in jwk": (
        lambda _: jwt.encode(
            {"alg": "ES256", "kid": "ec", "jwk": STRANGER.as_dict(private=False)}, dict(GOOD), STRANGER
        ),
        "an invalid signature",
    ),
    "a stranger's key at jku": (
        lambda _: jwt.encode({"alg": "ES256", "kid": "ec", "jku": "https://evil.example/keys"}, dict(GOOD), STRANGER),
        "an invalid signature",
    ),
    "a stranger's certificate at x5u": (
        lambda _: jwt.encode({"alg": "ES256", "kid": "ec", "x5u": "https://evil.example/c"}, dict(GOOD), STRANGER),
        "an invalid signature",
    ),
    "an unknown kid": (lambda _: jwt.encode({"alg": "ES256", "kid": "x"}, dict(GOOD), STRANGER), "an unknown key"),
    "a path as kid": (lambda _: jwt.encode({"alg": "ES256", "kid": "../ec"}, dict(GOOD), _EC), "an unknown key"),
    "a kid of another kind": (lambda _: forged({"alg": "ES256", "kid": 7}, GOOD, bytes(64)), "an unknown key"),
    "no kid, several keys": (lambda d: d.sign(None), "does not name its key"),
    "crit": (lambda _: forged({"alg": "ES256", "kid": "ec", "crit": ["exp"], "exp": 1}, GOOD), "a critical header"),
    "crit of a known header": (
        lambda _: forged({"alg": "ES256", "kid": "ec", "crit": ["kid"]}, GOOD),
        "a critical header",
    ),
    "an unencoded payload": (
        lambda _: jws.serialize_compact({"alg": "ES256", "kid": "ec", "b64": False, "crit": ["b64"]}, b"e30", _EC),
        "is malformed",
    ),
    "a token of a logout": (lambda d: d.sign(header={"typ": "logout+jwt"}), "another type"),
    "a type of another kind": (lambda _: forged({"alg": "ES256", "kid": "ec", "typ": 7}, GOOD), "another type"),
    "another issuer": (lambda d: d.sign(iss="https://evil.example"), "an unknown issuer"),
    "an issuer with a slash more": (lambda d: d.sign(iss=f"{URL}/"), "an unknown issuer"),
    "an issuer in a list": (lambda d: d.sign(iss=[URL]), "an unknown issuer"),
    "no issuer": (lambda d: d.sign(iss=None), "an unknown issuer"),
    "another audience": (lambda d: d.sign(aud="https://other.shop.example"), "another audience"),
    "a longer audience": (lambda d: d.sign(aud=f"{AUDIENCE}.evil.example"), "another audience"),
    "other audiences": (lambda d: d.sign(aud=["a", "b"]), "another audience"),
    "audiences of another kind": (lambda d: d.sign(aud=[AUDIENCE, 7]), "another audience"),
    "an object as audience": (lambda d: d.sign(aud={AUDIENCE: 1}), "another audience"),
    "no audience": (lambda d: d.sign(aud=None), "another audience"),
    "no subject": (lambda d: d.sign(sub=None), "claim 'sub'"),
    "an empty subject": (lambda d: d.sign(sub=""), "claim 'sub'"),
    "a subject of another kind": (lambda d: d.sign(sub=7), "claim 'sub'"),
    "expired": (lambda d: d.sign(exp=NOW_S - 30), "has expired"),
    "never expires": (lambda d: d.sign(exp=None), "has expired"),
    "expires at a word": (lambda d: d.sign(exp="later"), "has expired"),
    "expires at true": (lambda d: d.sign(exp=True), "has expired"),
    "expires before all times": (lambda d: d.sign(exp=-(10**30)), "has expired"),
    "not valid yet": (lambda d: d.sign(nbf=NOW_S + 31), "is not valid yet"),
    "valid from a word": (lambda d: d.sign(nbf="soon"), "is not valid yet"),
    "issued in the future": (lambda d: d.sign(iat=NOW_S + 31), "claim 'iat'"),
    "nothing": (lambda _: "", "is malformed"),
    "dots": (lambda _: "..", "is malformed"),
    "two parts": (lambda d: d.sign().rpartition(".")[0], "is malformed"),
    "four parts": (lambda d: d.sign() + ".e30", "is malformed"),
    "five parts, as if encrypted": (lambda d: d.sign() + ".e30.e30", "is malformed"),
    "a list as header": (lambda _: forged(["alg"], GOOD), "is malformed"),
    "a number as header": (lambda _: forged(7, GOOD), "is malformed"),
    "a text as header": (lambda _: forged("alg", GOOD), "is malformed"),
    "a list as claims": (lambda _: forged({"alg": "ES256", "kid": "ec"}, [1]), "is malformed"),
    "no JSON as claims": (lambda _: forged({"alg": "ES256", "kid": "ec"}, b"{"), "is malformed"),
    "NaN as claim": (lambda _: forged({"alg": "ES256", "kid": "ec"}, b'{"exp": NaN}'), "is malformed"),
    "a deep header": (lambda _: forged(b'{"alg":' + b"[" * 2_000, GOOD), "is malformed"),
    "deep claims": (lambda _: forged({"alg": "ES256"}, b"[" * 9_000), "is malformed"),
    "a long header": (lambda _: forged({"alg": "ES256", "x": "y" * 5_000}, GOOD), "is malformed"),
    "not base64": (lambda _: "#.#.#", "is malformed"),
    "not ASCII": (lambda _: b"\xff.\xfe.\xfd", "is malformed"),
    "a huge token": (lambda _: b"e30." + b"A" * 60_000 + b".x", "more than 16384 bytes"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_for_what_it_is(desk: Desk, attack: str) -> None:
    make, says = ATTACKS[attack]
    assert says in desk.problem(make(desk))


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["ES256", "RS256", "PS256", "HS256", "none", "", 7, None]),
        "kid": st.sampled_from(["ec", "rsa", "x", "", 7, None, ["ec"]]),
        "typ": st.sampled_from(["JWT", "at+jwt", "", "x", None]),
        "crit": st.sampled_from([[], ["exp"], "exp", None]),
        "jwk": st.just(STRANGER.as_dict(private=False)),
        "b64": st.booleans(),
    },
)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(st.just(value), st.none(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.text()))
        for name, value in {**GOOD, "nbf": NOW_S, "iat": NOW_S}.items()
    },
)


@given(header=HEADERS, claims=CLAIMS, signature=st.binary(max_size=80), signer=st.sampled_from(["nobody", "stranger"]))
def test_no_token_that_the_issuer_did_not_sign_is_accepted(
    header: dict[str, Any], claims: dict[str, Any], signature: bytes, signer: str
) -> None:
    desk = Desk()
    token = forged(header, claims, signature)
    if signer == "stranger":
        head, body, _ = token.split(".")
        made = jws.serialize_compact({"alg": "ES256"}, b"", STRANGER).rpartition(".")[2]
        token = f"{head}.{body}.{made}"
    desk.problem(token)


def is_good(claims: Mapping[str, Any]) -> bool:
    """Return what the documentation promises for signed claims: all there, of their kinds, and valid now."""

    def is_time(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)

    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if claims.get("iss") != URL or AUDIENCE not in audiences or not all(isinstance(item, str) for item in audiences):
        return False
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        return False
    if not is_time(claims.get("exp")) or claims["exp"] + 30 <= NOW_S:
        return False
    return all(is_time(claims[name]) and claims[name] - 30 <= NOW_S for name in ("nbf", "iat") if name in claims)


TIMES = st.one_of(st.integers(NOW_S - 40, NOW_S + 40), st.sampled_from([0, 10**30, True, None, "x", [NOW_S + 9]]))
SIGNED = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from([URL, URL, URL, "https://evil.example"]),
        "aud": st.sampled_from([AUDIENCE, AUDIENCE, [AUDIENCE, "x"], ["x"], [], "x"]),
        "sub": st.sampled_from(["web", "web", "", 7]),
        "exp": TIMES,
        "nbf": TIMES,
        "iat": TIMES,
        "scope": st.sampled_from(["predict", "root predict", 7]),
    },
)


@given(claims=SIGNED)
def test_signed_claims_are_accepted_exactly_if_they_are_good(claims: dict[str, Any]) -> None:
    desk = Desk()
    token = desk.provider.sign("ec", claims)
    if is_good(claims):
        expected = {"predict"} if isinstance(claims.get("scope"), str) else set()
        assert (desk.caller(token).name, desk.caller(token).scopes) == ("web", expected)
    else:
        desk.problem(token)


@pytest.mark.parametrize(
    ("claims", "last_us", "next_us", "says"),
    [
        ({"exp": NOW_S}, (NOW_S + 30) * SECOND - 1, (NOW_S + 30) * SECOND, "has expired"),
        ({"nbf": NOW_S, "exp": NOW_S + 9}, (NOW_S - 30) * SECOND, (NOW_S - 30) * SECOND - 1, "is not valid yet"),
    ],
)
def test_the_leeway_has_an_edge_for_new_and_for_remembered_tokens(
    desk: Desk, claims: dict[str, Any], last_us: int, next_us: int, says: str
) -> None:
    token = desk.sign(**claims)
    desk.now_us = next_us
    assert desk.problem(token) == says
    desk.now_us = last_us
    assert desk.caller(token).name == "web"
    desk.now_us = next_us
    assert desk.problem(token) == says


def test_a_clock_that_steps_changes_what_is_valid_at_once(desk: Desk) -> None:
    token = desk.sign(nbf=NOW_S)
    told = []
    for step_s in (0, 400, 0, -400, 0):
        desk.now_us = (NOW_S + step_s) * SECOND
        try:
            told.append(desk.caller(token).name)
        except AccessError as error:
            told.append(error.problem)
    assert told == ["web", "has expired", "web", "is not valid yet", "web"]


def test_a_header_with_other_keys_is_ignored_if_the_signature_is_the_issuers(desk: Desk) -> None:
    header = {"jku": "https://evil.example", "x5u": "https://evil.example", "jwk": STRANGER.as_dict(private=False)}
    assert desk.caller(desk.sign(header={**header, "later": 1})).name == "web"


def test_without_an_id_a_single_key_is_enough(desk: Desk) -> None:
    desk.provider.published = ["ec"]
    assert desk.caller(desk.sign(None)).name == "web"


def test_a_key_of_one_algorithm_is_not_used_for_another() -> None:
    desk = Desk(rules={"algorithms": ("PS256", "RS256")})
    key = RSAKey.import_key({**_RSA.as_dict(private=True), "alg": "PS256", "kid": "ps"})
    desk.provider.keys, desk.provider.published = {"ps": key}, ["ps"]
    token = jwt.encode({"alg": "RS256", "kid": "ps"}, desk.provider.claims(NOW_S), _RSA)
    assert desk.problem(token) == "has another algorithm than its key"


def test_one_issuers_key_does_not_sign_for_another(desk: Desk) -> None:
    other = "https://other.example"
    both = Desk(rules={"issuers": (Issuer(url=URL), Issuer(url=other))})
    assert both.problem(both.sign(iss=other)) == "cannot be verified, because the keys of its issuer are unavailable"
    assert desk.problem(desk.sign(iss=other)) == "is of an unknown issuer"


def test_a_verified_token_is_remembered_and_forgotten_with_a_removed_key(desk: Desk) -> None:
    token = desk.sign()
    caller = desk.caller(token)
    desk.provider.published = []
    assert desk.caller(token) is caller
    desk.verifier._forget()
    assert "keys of its issuer are unavailable" in desk.problem(token)


def test_only_good_tokens_are_remembered_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "_MAX_REMEMBERED", 50)
    desk = Desk(rules={"rate": 5.0})
    for i in range(120):
        desk.caller(desk.sign(sub=f"web{i}"))
        desk.problem(desk.sign(sub=f"web{i}", aud="x"))
        desk.problem(desk.sign(exp=NOW_S - 60, jti=str(i)))
    remembered = desk.verifier._remembered
    assert (len(remembered), len(desk.verifier._buckets)) == (50, 50)
    # A hash and the caller's parts, but no token.
    size = sum(sys.getsizeof(key) + sys.getsizeof(caller) for key, caller in remembered.items())
    assert size / len(remembered) < 400


def test_a_flood_of_unknown_ids_is_refused_without_a_wait(desk: Desk) -> None:
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
    desk = Desk(rules=rules)
    caller = desk.caller(desk.sign(**claims))
    assert (caller.scopes, caller.models) == (scopes, models)


def test_all_tokens_of_a_subject_share_its_rate() -> None:
    desk = Desk(rules={"rate": 0.5})
    callers = [desk.caller(desk.sign(sub=sub, jti=str(i))) for i, sub in enumerate(("web", "web", "other"))]
    callers[0].count(1.0)
    callers[2].count(1.0)
    with pytest.raises(RateError, match=r"token 'web': has sent more than 0\.5 requests per second"):
        callers[1].count(1.0)


@pytest.fixture
def access(tmp_path: Path, desk: Desk) -> KeyAccess:
    return KeyAccess(KeyStore(ProjectState(tmp_path)), lambda: desk.now_us, tokens=desk.verifier)


@pytest.mark.parametrize("header", [b"authorization", b"x-api-key"])
def test_a_token_is_sent_as_a_key_is(desk: Desk, access: KeyAccess, header: bytes) -> None:
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
    assert TokenRules.of(Settings(**good)) is not None
    assert TokenRules.of(Settings()) is None
    with pytest.raises(DefinitionError, match=says):
        TokenRules.of(Settings(**{**good, **settings}))
