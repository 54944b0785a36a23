"""Which hosts sinks may deliver to: a webhook must not reach a service that trusts every caller on this network.

Metadata services of clouds hand out credentials, and services on this machine often need no password. A name that
somebody else controls may resolve to either, so names are checked, and the addresses that they resolve to as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

from skewless.contract.errors import DefinitionError
from skewless.contract.loopback import is_loopback
from skewless.contract.sinks import KafkaSink, KinesisSink, Sink, WebhookSink

Address: TypeAlias = IPv4Address | IPv6Address
_NAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9_.-]{0,251}[a-z0-9])?")
_METADATA_NAMES = {"metadata", "metadata.google.internal", "metadata.goog"}
# Link-local addresses (which have most metadata services), metadata services elsewhere, "this" network, and addresses
# of no single host.
_REFUSED = [
    ip_network(text)
    for text in (
        *("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32"),
        *("0.0.0.0/8", "::/128", "224.0.0.0/4", "240.0.0.0/4", "ff00::/8"),
    )
]
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class SinkHosts:
    """The hosts that sinks may deliver to.

    Args:
        allowed: names, ``*.DOMAIN`` for the names below a domain, addresses and networks; empty: all hosts but
            link-local addresses and metadata services.
    """

    allowed: tuple[str, ...] = ()

    def check(
        self, sink: Sink, hosts: Iterable[str] | None = None, problem: str = "delivers to a host that is not allowed"
    ) -> None:
        """Check where a sink delivers to.

        Args:
            hosts: of an address that is not in its definition; None: those of its definition.
            problem: for the error.

        Raises:
            DefinitionError: it is not allowed.
        """
        for host in _hosts_of(sink) if hosts is None else hosts:
            if not self.permits(host):
                raise DefinitionError(
                    f"sink {sink.name!r}",
                    problem,
                    value=host,
                    fix="add the host to the setting 'sink_hosts', or deliver to another one",
                )

    def permits(self, host: str) -> bool:
        """Return whether a host as written in a definition is allowed; names are not resolved.

        >>> [SinkHosts().permits(host) for host in ("cases.shop.com", "10.1.2.3", "localhost", "169.254.169.254")]
        [True, True, True, False]
        >>> [SinkHosts(("*.shop.com",)).permits(host) for host in ("cases.shop.com", "shop.com", "10.1.2.3")]
        [True, False, False]
        """
        address = _parse(host)
        if address is not None:
            return self._is_listed(host) or not (self.allowed or _is_refused(address))
        name = host.lower().removesuffix(".")
        if any(name == each or (each.startswith("*.") and name.endswith(each[1:])) for each in self.allowed):
            return True
        return not self.allowed and name not in _METADATA_NAMES

    def permits_address(self, host: str, address: str) -> bool:
        """Return whether an address that an allowed name resolves to may be used.

        A name other than ``localhost`` must not lead to this machine, unless its address is listed.

        >>> [SinkHosts().permits_address("a.com", address) for address in ("8.8.8.8", "127.0.0.1", "169.254.1.1")]
        [True, False, False]
        """
        parsed = _parse(address)
        if parsed is None:
            return False
        if self._is_listed(address):
            return True
        return not _is_refused(parsed) and (not parsed.is_loopback or is_loopback(host))

    def _is_listed(self, address: str) -> bool:
        forms = {ip_address(address), _parse(address)}  # as written, and its IPv4 form
        networks = [network for network in map(_parse_network, self.allowed) if network is not None]
        return any(form in network for form in forms if form is not None for network in networks)


def check_sinks(sinks: Iterable[Sink], allowed: tuple[str, ...]) -> None:
    """Check where the sinks of a plan deliver to.

    Raises:
        DefinitionError: a destination is not allowed.
    """
    hosts = SinkHosts(allowed)
    for sink in sinks:
        hosts.check(sink)


def check_pattern(text: str) -> str:
    """Return an item of ``sink_hosts`` in lower case.

    Raises:
        ValueError: it is neither a name, nor ``*.DOMAIN``, nor an address, nor a network.

    >>> check_pattern("*.Shop.com"), check_pattern("10.0.0.0/8")
    ('*.shop.com', '10.0.0.0/8')
    """
    lowered = text.lower()
    if _parse_network(lowered) is None and not _NAME.fullmatch(lowered):
        raise ValueError(f"{text!r} is neither a host, *.DOMAIN, an address nor a network")
    return lowered


def _hosts_of(sink: Sink) -> list[str]:
    if isinstance(sink, WebhookSink):
        return [urlsplit(sink.url).hostname or ""]
    if isinstance(sink, KafkaSink):
        return [urlsplit(f"//{server.strip()}").hostname or "" for server in sink.servers.split(",")]
    return [f"kinesis.{sink.region}.amazonaws.com"] if isinstance(sink, KinesisSink) else []


def _parse(host: str) -> Address | None:
    """Return the address that a text is, in its IPv4 form if an IPv6 address has one; None: it is a name."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _parse_network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def _is_refused(address: Address) -> bool:
    return any(address in network for network in _REFUSED)
