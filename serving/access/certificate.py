"""The certificate that a client has shown in its TLS handshake, and the names in it."""

from __future__ import annotations

import ssl
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SECOND = 1_000_000


class PeerCertificate:
    """A client certificate whose chain TLS has verified. Its names are read once for a connection, when needed.

    Args:
        der: the certificate in DER.
    """

    def __init__(self, der: bytes) -> None:
        self._der = der

    @classmethod
    def from_pem(cls, pem: bytes) -> PeerCertificate:
        """Return the certificate of a PEM text, as gRPC gives it."""
        return cls(ssl.PEM_cert_to_DER_cert(pem.decode("ascii")))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return its names as API keys name them: ``dns:``, ``uri:`` and ``email:``, last ``subject:``.

        Names are compared as a whole. A wildcard is not expanded, so it can only be equal to itself.
        """
        from cryptography import x509  # noqa: PLC0415 - only with client certificates

        try:
            alternatives = self._parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = [
                *(f"dns:{name.lower()}" for name in alternatives.get_values_for_type(x509.DNSName)),
                *(f"uri:{uri}" for uri in alternatives.get_values_for_type(x509.UniformResourceIdentifier)),
                *(f"email:{address}" for address in alternatives.get_values_for_type(x509.RFC822Name)),
            ]
        except (x509.ExtensionNotFound, ValueError):  # ValueError: another extension is malformed
            names = []
        return *names, f"subject:{self._parsed.subject.rfc4514_string()}"

    @cached_property
    def validity_us(self) -> tuple[int, int]:
        """Return its first and its last microsecond, UTC. A connection may be open for longer than the certificate."""
        parsed = self._parsed
        first, last = parsed.not_valid_before_utc, parsed.not_valid_after_utc
        return int(first.timestamp()) * _SECOND, int(last.timestamp()) * _SECOND + _SECOND - 1

    @cached_property
    def _parsed(self) -> Certificate:
        from cryptography import x509  # noqa: PLC0415 - only with client certificates

        return x509.load_der_x509_certificate(self._der)
