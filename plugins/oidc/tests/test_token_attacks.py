"""Attacks on tokens, as a table and as generated ones: none is accepted, and each is refused for what it is."""

from __future__ import annotations

import hmac
import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws, jwt

from plugins.oidc.tests.token_desk import EC, GOOD, NOW_S, RSA, STRANGER, URL, TokenDesk
from tests.servers.identity_provider import AUDIENCE


@pytest.fixture
def desk() -> TokenDesk:
    return TokenDesk()


def encode(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(header: object, claims: object, signature: bytes = b"") -> str:
    return f"{encode(header)}.{encode(claims)}.{encode(signature)}"


def hmac_with_public_key(desk: TokenDesk, key: Any) -> str:  # noqa: ANN401 - a key
    body = f"{encode({'alg': 'HS256', 'kid': 'rsa'})}.{encode(desk.provider.claims(NOW_S))}"
    return f"{body}.{encode(hmac.digest(key.as_pem(private=False), body.encode(), 'sha256'))}"


def resigned(desk: TokenDesk, part: int) -> str:
    """Return a good token with one altered part."""
    parts = desk.sign().split(".")
    text = urlsafe_b64decode(parts[part] + "==")
    parts[part] = encode(text[:-1] + bytes([text[-1] ^ 1]) if part == 2 else text.replace(b"web", b"boss", 1))
    return ".".join(parts)


ATTACKS: dict[str, tuple[Callable[[TokenDesk], str | bytes], str]] = {
    "alg none": (lambda _: forged({"alg": "none"}, GOOD), "a forbidden algorithm"),
    "alg None": (lambda _: forged({"alg": "None", "kid": "ec"}, GOOD), "a forbidden algorithm"),
    "alg none with a signature": (lambda _: forged({"alg": "none", "kid": "ec"}, GOOD, b"x"), "a forbidden algorithm"),
    "no alg": (lambda _: forged({"kid": "ec"}, GOOD), "is malformed"),
    "alg of another kind": (lambda _: forged({"alg": ["ES256"], "kid": "ec"}, GOOD), "a forbidden algorithm"),
    "HS256 with the RSA public key": (lambda d: hmac_with_public_key(d, RSA), "a forbidden algorithm"),
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
    "a path as kid": (lambda _: jwt.encode({"alg": "ES256", "kid": "../ec"}, dict(GOOD), EC), "an unknown key"),
    "a kid of another kind": (lambda _: forged({"alg": "ES256", "kid": 7}, GOOD, bytes(64)), "an unknown key"),
    "no kid, several keys": (lambda d: d.sign(None), "does not name its key"),
    "crit": (lambda _: forged({"alg": "ES256", "kid": "ec", "crit": ["exp"], "exp": 1}, GOOD), "a critical header"),
    "crit of a known header": (
        lambda _: forged({"alg": "ES256", "kid": "ec", "crit": ["kid"]}, GOOD),
        "a critical header",
    ),
    "an unencoded payload": (
        lambda _: jws.serialize_compact({"alg": "ES256", "kid": "ec", "b64": False, "crit": ["b64"]}, b"e30", EC),
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
def test_an_attack_is_refused_for_what_it_is(desk: TokenDesk, attack: str) -> None:
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
    desk = TokenDesk()
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
    desk = TokenDesk()
    token = desk.provider.sign("ec", claims)
    if is_good(claims):
        expected = {"predict"} if isinstance(claims.get("scope"), str) else set()
        assert (desk.caller(token).name, desk.caller(token).scopes) == ("web", expected)
    else:
        desk.problem(token)
