"""TLS: what uvicorn is told, after the files were tried, and files that are renewed while it runs."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypedDict, cast

import structlog
import uvicorn
from uvicorn.config import create_ssl_context

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Settings
from skewless.infra.access.key_file import Stamp, read_stamp

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: forward secrecy, and no suite in CBC mode
_log = structlog.get_logger()


class TlsOptions(TypedDict, total=False):
    """The arguments of ``uvicorn.Config`` that turn TLS on; empty: plain HTTP."""

    ssl_certfile: str
    ssl_keyfile: str
    ssl_ca_certs: str
    ssl_cert_reqs: int
    ssl_ciphers: str


def tls_options(settings: Settings, repo: Path) -> TlsOptions:
    """Return what the settings ask for; TLS 1.2 is the oldest version that is then spoken.

    Args:
        settings: ``tls_cert``, ``tls_key`` and ``tls_ca``.
        repo: the project's folder, to which their paths are relative.

    Raises:
        DefinitionError: a setting lacks the one it needs, or a file is missing, unreadable, locked by a passphrase, or
            does not hold what it should.
    """
    cert, key, authority = (_file(settings, name, repo) for name in ("tls_cert", "tls_key", "tls_ca"))
    if cert is None or key is None:
        _check_none(settings)
        return {}
    _check_certificates("tls_cert", cert)
    _check_pair(cert, key)
    options: TlsOptions = {"ssl_certfile": cert, "ssl_keyfile": key, "ssl_ciphers": _CIPHERS}
    if authority is None:
        return options
    _check_certificates("tls_ca", authority)
    return {**options, "ssl_ca_certs": authority, "ssl_cert_reqs": ssl.CERT_REQUIRED}


class CertificateRenewal:
    """Takes up files that were renewed: new connections get them, and those that stand go on as they were.

    Files that do not fit together are logged, and leave everything as it was; often the other one follows.

    Args:
        options: of a server with TLS; they are loaded here.

    Attributes:
        context: what new connections get.
    """

    def __init__(self, options: uvicorn.Config) -> None:
        self._options = options
        self._stamps = self._seen()
        options.load()
        first = cast("ssl.SSLContext", options.ssl)
        first.sni_callback = self._choose
        self.context = first

    def look(self) -> None:
        """Take up the files if they are others than at the last look."""
        stamps = self._seen()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self.context = self._read()
        except (DefinitionError, OSError) as error:
            _log.error("tls_certificate_unchanged", error=str(error))
        else:
            _log.info("tls_certificate_read", file=str(self._options.ssl_certfile))

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        connection.context = self.context  # called for each connection, whether or not it names a server

    def _read(self) -> ssl.SSLContext:
        config = self._options
        cert, key, authority = str(config.ssl_certfile), str(config.ssl_keyfile), config.ssl_ca_certs
        _check_certificates("tls_cert", cert)
        _check_pair(cert, key)
        if authority is not None:
            _check_certificates("tls_ca", str(authority))
        return create_ssl_context(
            certfile=cert,
            keyfile=key,
            password=None,
            ssl_version=config.ssl_version,
            cert_reqs=config.ssl_cert_reqs,
            ca_certs=authority,
            ciphers=config.ssl_ciphers,
        )

    def _seen(self) -> tuple[Stamp | None, ...]:
        config = self._options
        files = (config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs)
        return tuple(None if name is None else read_stamp(Path(name)) for name in files)


def _check_none(settings: Settings) -> None:
    given = [name for name in ("tls_cert", "tls_key", "tls_ca") if getattr(settings, name) is not None]
    if given:
        raise _wrong(given[0], "needs others that are not set", None, "set tls_cert and tls_key, or none of them")


def _file(settings: Settings, name: str, repo: Path) -> str | None:
    setting: str | None = getattr(settings, name)
    if setting is None:
        return None
    path = repo / setting
    try:
        path.open("rb").close()
    except OSError as error:
        fix = "correct the path, which is relative to the project's folder, or the file's rights"
        raise _wrong(name, f"names a file that cannot be read: {error.strerror}", path, fix) from error
    return str(path)


def _check_certificates(name: str, path: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise _wrong(name, "names a file without a certificate", path, "give a file in PEM format") from error


def _check_pair(cert: str, key: str) -> None:
    try:
        # Without this word for a passphrase, OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            fix = "give the certificate and the private key that it was made for"
            raise _wrong("tls_key", "names the key of another certificate", key, fix) from error
        fix = "give it in PEM format, without a passphrase (`openssl pkey -in KEY -out PLAIN`)"
        raise _wrong("tls_key", "names a file without a private key that can be read", key, fix) from error


def _wrong(name: str, problem: str, value: object, fix: str) -> DefinitionError:
    return DefinitionError(f"setting {name!r}", problem, value=None if value is None else str(value), fix=fix)
