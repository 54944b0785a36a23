"""The hosts that sinks may deliver to: names, addresses in every notation, and the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skewless.contract.destinations import SinkHosts, check_sinks
from skewless.contract.errors import DefinitionError
from skewless.contract.settings import load_settings
from skewless.contract.sinks import KafkaSink, KinesisSink, ParquetSink, RedisStreamSink, Sink, WebhookSink

METADATA = (
    *("169.254.169.254", "169.254.170.2", "fe80::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255"),  # noqa: S104 - refused
)


def webhook(host: str, **fields: Any) -> WebhookSink:  # noqa: ANN401 - of the sink
    host = f"[{host}]" if ":" in host else host
    return WebhookSink(name="out", url=f"https://{host}/s3cret", secret_env="HOOK_SECRET", **fields)  # noqa: S106 - a name


@pytest.mark.parametrize("host", [*METADATA, "metadata.google.internal", "Metadata.Google.Internal."])
def test_metadata_services_are_refused_unless_they_are_listed(host: str) -> None:
    sinks: list[Sink] = [webhook(host)]
    if ":" not in host:
        sinks.append(KafkaSink(name="out", topic="t", servers=f"kafka:9092,{host}:9092"))
    for sink in sinks:
        with pytest.raises(DefinitionError, match="sink 'out': delivers to a host that is not allowed") as raised:
            check_sinks([sink], ())
        assert "s3cret" not in str(raised.value)
        check_sinks([sink], ("kafka", host.lower().removesuffix(".")))


@pytest.mark.parametrize("host", METADATA)
def test_a_name_must_not_resolve_to_a_metadata_service(host: str) -> None:
    assert not SinkHosts().permits_address("cases.shop.com", host)
    assert not SinkHosts(("cases.shop.com",)).permits_address("cases.shop.com", host)
    assert SinkHosts(("cases.shop.com", host)).permits_address("cases.shop.com", host)


def test_a_name_must_not_lead_to_this_machine() -> None:
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert not SinkHosts().permits_address("cases.shop.com", address)
        assert SinkHosts().permits_address("localhost", address)
    assert SinkHosts(("*.shop.com", "127.0.0.0/8")).permits_address("cases.shop.com", "127.0.0.1")
    assert SinkHosts().permits_address("cases.shop.com", "10.1.2.3")  # most receivers are in the same network


def test_only_listed_hosts_are_allowed() -> None:
    allowed = ("cases.shop.com", "*.kafka.shop.com", "10.0.0.0/8")
    good: list[Sink] = [webhook("cases.shop.com"), webhook("10.1.2.3"), ParquetSink(name="out")]
    check_sinks([*good, KafkaSink(name="out", topic="t", servers="b1.kafka.shop.com:9092, 10.1.1.1:9092")], allowed)
    check_sinks([RedisStreamSink(name="out", stream="s")], allowed)  # that of the project
    for host in (
        "shop.com",
        "kafka.shop.com",
        "evil-cases.shop.com",
        "cases.shop.com.evil.com",
        "11.1.2.3",
        "localhost",
    ):
        with pytest.raises(DefinitionError, match="is not allowed"):
            check_sinks([webhook(host)], allowed)
    with pytest.raises(DefinitionError, match="is not allowed"):
        check_sinks([KafkaSink(name="out", topic="t", servers="b1.kafka.shop.com:9092,evil.com:9092")], allowed)
    kinesis = KinesisSink(name="out", stream="s", region="eu-central-1")
    with pytest.raises(DefinitionError, match=r"kinesis\.eu-central-1\.amazonaws\.com"):
        check_sinks([kinesis], allowed)
    check_sinks([kinesis], (*allowed, "*.eu-central-1.amazonaws.com"))


def test_the_setting_takes_names_addresses_and_networks(tmp_path: Path) -> None:
    assert load_settings(tmp_path, sink_hosts=["*.Shop.com", "::1", "10.0.0.0/8"]).sink_hosts == (
        "*.shop.com",
        "::1",
        "10.0.0.0/8",
    )
    for wrong in ("https://shop.com", "shop.com:443", "*", "a b", "10.0.0.1/8", ""):
        with pytest.raises(DefinitionError, match="sink_hosts"):
            load_settings(tmp_path, sink_hosts=[wrong])
