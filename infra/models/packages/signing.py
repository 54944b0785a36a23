"""Signatures of packages: the project's Ed25519 key signs each manifest; only packages of trusted keys are loaded."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from skewless.contract.errors import DefinitionError, PackageError, PlaceError
from skewless.contract.names import check_known
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.infra.platform.storage.durable import create_durable
from skewless.infra.platform.storage.project_state import ProjectState

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE = "signature.json"
PRIVATE_FILE = "signing_key.pem"
_SCHEME = "ed25519:"
_KEY_BYTES = 32
_FORMAT = 1
_REPLACE = "restore it, use another version, or train again"
SignedText = Literal["package manifest", "export certificate", "runtime certificate"]


@dataclass(frozen=True, kw_only=True)
class TrustPolicy:
    """The keys whose packages are loaded.

    Args:
        state: its database has the trusted public keys, ``ed25519:`` and base64; read where ``given`` is empty.
        given: trusted public keys that replace those of the database.
        unsigned: whether a package without a signature passes too: it is about to be signed.

    Raises:
        DefinitionError: a given key is not one.
    """

    state: ProjectState
    given: frozenset[str] = frozenset()
    unsigned: bool = False

    def __post_init__(self) -> None:
        for key in self.given:
            if _decode_key(key) is None:
                fix = "write keys as `skewless sign` shows them: ed25519: and 44 characters"
                raise DefinitionError("setting 'trusted_keys'", "has a value that is not a key", value=key, fix=fix)

    def trusted_keys(self) -> frozenset[str]:
        """Return the trusted keys.

        Raises:
            StoreError: the database is unavailable.
        """
        return self.given or frozenset(trusted_documents(self.state).names())

    def check(self, thing: str, text: bytes, signature: bytes | None, kind: SignedText = "package manifest") -> None:
        """Check that a trusted key has signed a text, by default the manifest of a package.

        Args:
            thing: the package or export, for errors.
            text: its manifest or certificate.
            signature: bytes of the signature file; None: there is none.
            kind: which of these it is.

        Raises:
            PackageError: it has no signature, an untrusted key signed it, or the signature is of another text.
        """
        if signature is None:
            if self.unsigned:
                return
            fix = "if you trust the files in its folder, run `skewless sign`"
            raise PackageError(thing, "is not signed", fix=fix)
        key, signed = _decode_signature(thing, signature)
        if key not in self.trusted_keys():
            fix = "train it again here, or add the key to the setting trusted_keys if you trust its owner"
            raise PackageError(thing, "is signed by a key that is not trusted", value=key, fix=fix)
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only for opening packages
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as above

        try:
            Ed25519PublicKey.from_public_bytes(_decode_key(key) or b"").verify(signed, _message(kind, text))
        except (InvalidSignature, ValueError) as error:
            name = kind.rpartition(" ")[2]
            raise PackageError(
                thing, f"has a signature of another {name}", value=f"{name}.json", fix=_REPLACE
            ) from error


@dataclass(frozen=True, kw_only=True)
class Signer:
    """The key that signs packages.

    Args:
        path: its private key, PEM.
        own: whether it is the state folder's own key, which is created at its first use.
        state: its database trusts the public key then; None: a setting lists the trusted keys.
    """

    path: Path
    own: bool
    state: ProjectState | None

    def prepare(self) -> str:
        """Create the state folder's own key if it is missing; trust the key, and return the public key.

        Raises:
            DefinitionError: the key was removed from the trusted keys.
            PlaceError: the file cannot be read or is not an Ed25519 key.
            StoreError: the disk refused the write, or the database is unavailable.
        """
        if self.own and not self.path.exists():
            _create(self.path)
        public = _encode_key(self._key().public_key().public_bytes_raw())
        if self.state is not None:
            with self.state.database.transaction():
                if key_removals(self.state).latest_number(public):
                    fix = f"delete {self.path}, so that another key is created" if self.own else "name another key"
                    raise DefinitionError("signing key", "was removed from the trusted keys", value=public, fix=fix)
                trusted_documents(self.state).create(public, {})
        return public

    def sign(self, text: bytes, kind: SignedText = "package manifest") -> bytes:
        """Return the bytes of the signature file of a manifest or certificate."""
        key = self._key()
        body = {
            "format": _FORMAT,
            "key": _encode_key(key.public_key().public_bytes_raw()),
            "signature": base64.b64encode(key.sign(_message(kind, text))).decode(),
        }
        return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()

    def _key(self) -> Ed25519PrivateKey:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - only for signing
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - as above

        fix = "name a PEM file that `openssl genpkey -algorithm ed25519` wrote, without a passphrase"
        try:
            key = load_pem_private_key(self.path.read_bytes(), password=None)
        except OSError as error:
            raise PlaceError(f"signing key {self.path}", f"cannot be read: {error.strerror}", fix=fix) from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise PlaceError(f"signing key {self.path}", "is not a private key in PEM", fix=fix) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise PlaceError(f"signing key {self.path}", "is not an Ed25519 key", fix=fix)
        return key


def _message(kind: SignedText, text: bytes) -> bytes:
    # A prefix, so that a signature of another kind of text by the same key is not valid for this one.
    return f"skewless {kind}\n".encode() + text


def _create(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - once
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - as above
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        create_durable(path, text)
    except FileExistsError:
        return  # another training process was first; its key is the project's


def trusted_documents(state: ProjectState) -> Documents:
    """Return the trusted public keys, which are the names of these documents."""
    return Documents(state.database, "trusted_key")


def key_removals(state: ProjectState) -> Records:
    """Return the removals of trusted keys, which are the names of these records; a removed key is not trusted again."""
    return Records(state.database, "trusted_key_removal")


def record_removal(state: ProjectState, key: str, removal: dict[str, Any]) -> None:
    """Trust a key no longer, and record its removal.

    Args:
        key: a trusted key.
        removal: what is recorded.

    Raises:
        RequestError: the key is not trusted.
        StoreError: the database is unavailable; the key is still trusted.
    """
    with state.database.transaction():
        check_known("trusted key", key, trusted_documents(state).names())
        trusted_documents(state).delete(key)
        key_removals(state).add(key, removal)


def read_signer(signature: bytes) -> str | None:
    """Return the public key that a signature file names, without a check; None: the file cannot be read."""
    try:
        return _decode_signature("", signature)[0]
    except PackageError:
        return None


def _decode_signature(thing: str, data: bytes) -> tuple[str, bytes]:
    try:
        body = json.loads(data)
        form, key, signed = body["format"], body["key"], base64.b64decode(body["signature"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError):
        form, key, signed = None, None, b""
    if form != _FORMAT or _decode_key(key) is None:
        raise PackageError(thing, "has a signature that cannot be read", value=SIGNATURE, fix=_REPLACE)
    return key, signed


def _encode_key(raw: bytes) -> str:
    return _SCHEME + base64.b64encode(raw).decode()


def _decode_key(key: object) -> bytes | None:
    """Return the 32 bytes of a public key's text; None: the text is not a key."""
    if not isinstance(key, str) or not key.startswith(_SCHEME):
        return None
    try:
        raw = base64.b64decode(key.removeprefix(_SCHEME).encode("ascii"), validate=True)
    except ValueError:
        return None
    return raw if len(raw) == _KEY_BYTES and _encode_key(raw) == key else None
