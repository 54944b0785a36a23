"""TLS: what uvicorn is told, after the files were tried."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypedDict

from skewless.errors import DefinitionError
from skewless.settings import Settings


class TlsOptions(TypedDict, total=False):
    """The arguments of ``uvicorn.Config`` that turn TLS on; empty: plain HTTP."""

    ssl_certfile: str
    ssl_keyfile: str
    ssl_ca_certs: str
    ssl_cert_reqs: int


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
    options: TlsOptions = {"ssl_certfile": cert, "ssl_keyfile": key}
    if authority is None:
        return options
    _check_certificates("tls_ca", authority)
    return {**options, "ssl_ca_certs": authority, "ssl_cert_reqs": ssl.CERT_REQUIRED}


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
