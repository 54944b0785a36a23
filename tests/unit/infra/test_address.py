"""The URLs of online stores, in parts."""

from __future__ import annotations

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.platform.telemetry.redaction import display_url
from skewless.infra.reads.online.clients import RedisAddress


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "service", "options"),
    [
        ("redis://h:1/2", "server", (), "", {"db": 2}),
        ("rediss://u:p%40@h", "server", (), "", {"username": "u", "password": "p@", "ssl": True}),
        ("unix:///run/r.sock?db=1", "server", (), "", {"unix_socket_path": "/run/r.sock", "db": 1}),
        ("redis+cluster://a:1,b:2,c/", "cluster", (("a", 1), ("b", 2), ("c", 6379)), "", {}),
        ("redis+cluster://a", "cluster", (("a", 6379),), "", {}),
        ("redis+cluster://[::1]:7,a/0", "cluster", (("::1", 7), ("a", 6379)), "", {"db": 0}),
        (
            "rediss+cluster://u:p%2F@a:1/?ssl_ca_certs=/ca.pem",
            "cluster",
            (("a", 1),),
            "",
            {"username": "u", "password": "p/", "ssl": True, "ssl_ca_certs": "/ca.pem"},
        ),
        ("redis+sentinel://:p@a,b:5/m/3", "sentinel", (("a", 26379), ("b", 5)), "m", {"password": "p", "db": 3}),
        (
            "redis+sentinel://a/m?sentinel_password=s",
            "sentinel",
            (("a", 26379),),
            "m",
            {"sentinel_password": "s"},
        ),
    ],
)
def test_a_url_has_parts(
    url: str, kind: str, hosts: tuple[tuple[str, int], ...], service: str, options: dict[str, object]
) -> None:
    address = RedisAddress.parse(url)
    assert (address.kind, address.hosts, address.service, dict(address.options)) == (kind, hosts, service, options)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:6379",
        "http://:s3cret@127.0.0.1",
        "redis+cluster://",
        "redis+cluster://:s3cret@/",
        "redis+cluster://a:s3cret/",
        "redis+cluster://a/1",
        "redis+cluster://a,,b/",
        "redis+sentinel://a/",
        "redis+sentinel://:s3c/ret@a/m",
        "redis+else://a/",
    ],
)
def test_what_is_no_url_of_a_redis_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="is not the URL of a Redis") as caught:
        RedisAddress.parse(url)
    assert "s3c" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_url_of_many_hosts_is_shown_without_what_is_secret() -> None:
    assert display_url("redis+sentinel://u:p@a:1,b:2/m/0?sentinel_password=s") == "redis+sentinel://***@a:1,b:2/m/0"
