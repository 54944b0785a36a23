"""Addresses of MLflow stores: what a setting means from any folder, and whether a server answers."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from skewless.contract.errors import DefinitionError, StoreError

_SQLITE = "sqlite:///"
_HTTP = ("http://", "https://")
_PATIENCE_SECONDS = 3.0


def resolve_uri(uri: str, repo: Path) -> str:
    """Return an address that means the same from every folder: files of sqlite are relative to the project.

    Raises:
        DefinitionError: it is neither sqlite nor a server.

    >>> resolve_uri("sqlite:///mlflow.db", Path("/srv/shop"))
    'sqlite:////srv/shop/mlflow.db'
    >>> resolve_uri("http://mlflow:5000/", Path("/srv/shop"))
    'http://mlflow:5000'
    """
    if uri.startswith(_HTTP):
        return uri.rstrip("/")
    if uri.startswith(_SQLITE) and uri != _SQLITE:
        return _SQLITE + str(repo / uri.removeprefix(_SQLITE))
    raise DefinitionError(
        "setting 'tracking_uri'",
        "is no address of an MLflow store",
        fix="use sqlite:///FILE, or http:// or https:// of a tracking server",
    )


def artifact_folder(uri: str) -> str | None:
    """Return where artifacts go: beside a sqlite file; None: where the server says.

    >>> artifact_folder("sqlite:////srv/shop/mlflow.db")
    'file:///srv/shop/mlartifacts'
    """
    if not uri.startswith(_SQLITE):
        return None
    return (Path(uri.removeprefix(_SQLITE)).parent / "mlartifacts").as_uri()


def require_answer(uri: str) -> None:
    """Return at once where a server answers, or a file needs none: MLflow's own client tries for minutes.

    Raises:
        StoreError: it does not.
    """
    if not uri.startswith(_HTTP):
        return
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=_PATIENCE_SECONDS):  # noqa: S310 - http or https
            pass
    except urllib.error.HTTPError:
        return  # it answers, if only to refuse: the calls that follow say why
    except OSError as error:
        raise StoreError(
            "tracking server", f"does not answer: {error}", fix="start it, then run `skewless track`"
        ) from error
