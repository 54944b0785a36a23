"""Which hosts are this machine alone."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address, whatever a resolver says; False if in doubt.

    Args:
        host: a name or an address. The only loopback name is ``localhost``; ``0.0.0.0``, ``::`` and an empty host mean
            all addresses of the machine.

    >>> [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "127.0.0.1.example.com", "::")]
    [True, True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # `::ffff:127.0.0.1` is loopback only by its IPv4 part.
    ipv4 = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address.is_loopback if ipv4 is None else ipv4.is_loopback
