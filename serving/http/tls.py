"""TLS: checked settings for uvicorn, and reload of renewed certificates without a restart."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.config import create_ssl_context

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Settings
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.serving.metrics.metrics import Metrics

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2: with forward secrecy, without CBC mode
_log = EventLogger()
Stamp = tuple[int, int, int]  # inode, time of change and size: they differ after a file was replaced


def tls_options(settings: Settings, repo: Path) -> dict[str, Any]:
    """Return the arguments of ``uvicorn.Config`` for the settings; empty: plain HTTP.

    TLS 1.2 is the oldest supported version.

    Args:
        settings: ``tls_cert``, ``tls_key`` and ``tls_ca``.
        repo: the project's folder, to which the paths are relative.

    Raises:
        DefinitionError: a required setting is missing, or a file is missing, unreadable, protected by a passphrase, or
            has the wrong content.
    """
    cert, key, authority = (_readable_path(settings, name, repo) for name in ("tls_cert", "tls_key", "tls_ca"))
    if cert is None or key is None:
        for name in ("tls_cert", "tls_key", "tls_ca"):
            if getattr(settings, name) is not None:
                fix = "set tls_cert and tls_key, or neither"
                raise _setting_error(name, "requires other settings that are missing", None, fix)
        return {}
    check_certificates("tls_cert", cert)
    check_pair(cert, key)
    options: dict[str, Any] = {"ssl_certfile": cert, "ssl_keyfile": key, "ssl_ciphers": _CIPHERS}
    if authority is None:
        return options
    check_certificates("tls_ca", authority)
    return {**options, "ssl_ca_certs": authority, "ssl_cert_reqs": ssl.CERT_REQUIRED}


def watch_certificate(settings: Settings, repo: Path, metrics: Metrics) -> dict[str, Any]:
    """Return ``tls_options``, and let the metrics tell when the certificate ends."""
    options = tls_options(settings, repo)
    if options:
        metrics.certificate_expires().watch(lambda: certificate_end(Path(options["ssl_certfile"])))
    return options


def certificate_end(path: Path) -> float:
    """Return the end of the certificate in a PEM file, seconds since the epoch; 0 if it cannot be read any more."""
    from cryptography import x509  # noqa: PLC0415 - only with TLS

    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return 0.0


class TlsFiles:
    """The files of a certificate, of its key and, for client certificates, of their authority; None: no authority.

    Args:
        options: of a server with TLS.
    """

    def __init__(self, options: uvicorn.Config) -> None:
        self.cert, self.key = Path(str(options.ssl_certfile)), Path(str(options.ssl_keyfile))
        self.authority = None if options.ssl_ca_certs is None else Path(options.ssl_ca_certs)
        self._stamps = self._read_stamps()

    def have_changed(self) -> bool:
        """Return whether a file has changed since the last call: wrong files are reported once, not at every check."""
        before, self._stamps = self._stamps, self._read_stamps()
        return self._stamps != before

    def check(self) -> None:
        """Check that the files are certificates, and that the key belongs to its certificate.

        Raises:
            DefinitionError: they are not, or it does not.
        """
        check_certificates("tls_cert", str(self.cert))
        check_pair(str(self.cert), str(self.key))
        if self.authority is not None:
            check_certificates("tls_ca", str(self.authority))

    def _read_stamps(self) -> list[Stamp | None]:
        return [None if path is None else read_stamp(path) for path in (self.cert, self.key, self.authority)]


class CertificateRenewal:
    """Loads renewed certificate files for new connections; existing connections keep their certificate.

    Files that do not match are logged, and the previous ones stay in use; often the second file follows shortly.

    Args:
        options: of a server with TLS; they are loaded here.

    Attributes:
        context: TLS context for new connections.
    """

    def __init__(self, options: uvicorn.Config) -> None:
        self._options = options
        # Before the load: if the files change during it, the next check sees the change.
        self._files = TlsFiles(options)
        options.load()
        context = cast("ssl.SSLContext", options.ssl)
        context.sni_callback = self._select_context
        self.context = context

    def reload_if_changed(self) -> None:
        """Load the files if they have changed since the last check."""
        if not self._files.have_changed():
            return
        try:
            self.context = self._load_context()
        except (DefinitionError, OSError) as error:
            _log.error("tls_certificate_unchanged", error=str(error))
        else:
            _log.info("tls_certificate_read", file=str(self._options.ssl_certfile))

    def _select_context(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _first: ssl.SSLContext
    ) -> None:
        connection.context = self.context  # OpenSSL calls this for every connection, even without a server name

    def _load_context(self) -> ssl.SSLContext:
        config = self._options
        self._files.check()
        return create_ssl_context(
            certfile=self._files.cert,
            keyfile=self._files.key,
            password=None,
            ssl_version=config.ssl_version,
            cert_reqs=config.ssl_cert_reqs,
            ca_certs=config.ssl_ca_certs,
            ciphers=config.ssl_ciphers,
        )


def read_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file; None: it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns, status.st_size


def _readable_path(settings: Settings, name: str, repo: Path) -> str | None:
    setting: str | None = getattr(settings, name)
    if setting is None:
        return None
    path = repo / setting
    try:
        path.open("rb").close()
    except OSError as error:
        fix = "correct the path, which is relative to the project's folder, or the permissions of the file"
        raise _setting_error(name, f"names a file that cannot be read: {error.strerror}", path, fix) from error
    return str(path)


def check_certificates(name: str, path: str) -> None:
    """Check that a file has a certificate.

    Args:
        name: of the setting.

    Raises:
        DefinitionError: it has none.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise _setting_error(name, "names a file without a certificate", path, "give a file in PEM format") from error


def check_pair(cert: str, key: str) -> None:
    """Check that a key belongs to a certificate.

    Raises:
        DefinitionError: it does not, or cannot be read.
    """
    try:
        # With an empty passphrase OpenSSL fails on a protected key instead of prompting on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            fix = "give the certificate and its private key"
            raise _setting_error("tls_key", "names the key of another certificate", key, fix) from error
        fix = "give a file in PEM format, without a passphrase (`openssl pkey -in KEY -out PLAIN`)"
        raise _setting_error("tls_key", "names a file without a readable private key", key, fix) from error


def _setting_error(name: str, problem: str, value: object, fix: str) -> DefinitionError:
    return DefinitionError(f"setting {name!r}", problem, value=None if value is None else str(value), fix=fix)
