"""The compose file as the tests read it, and its containers of our images run by podman."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.servers.prediction import ROOT

FOLDER = ROOT / "infra" / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::\?([^}]*))?\}")
OURS = ("server-1", "server-2", "stream", "scheduler-1", "scheduler-2", "jobs")


def read_compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the compose file with its variables replaced, without its templates."""
    text = _VARIABLE.sub(lambda match: variables[match[1]], FILE.read_text(encoding="utf-8"))
    body: dict[str, Any] = yaml.safe_load(text)
    return {name: value for name, value in body.items() if not name.startswith("x-")}


def variables_of_compose() -> set[str]:
    """Return the names of the variables that the file needs."""
    text = FILE.read_text(encoding="utf-8")
    secrets = {str(secret["environment"]) for secret in yaml.safe_load(text)["secrets"].values()}
    return {match[1] for match in _VARIABLE.finditer(text)} | secrets


def podman_options(service: Mapping[str, Any], state: Path) -> list[str]:
    """Return the options of ``podman run`` for a service of ours.

    Args:
        state: folder in place of the service's volume.
    """
    project, volume = service["volumes"]
    where = volume.rpartition(":")[2]
    return [
        *(["--read-only"] if service["read_only"] else []),
        *(f"--cap-drop={name}" for name in service["cap_drop"]),
        *(f"--security-opt={option.replace(':true', '')}" for option in service["security_opt"]),
        *(f"--tmpfs={mount.replace(':', ':rw,', 1)}" for mount in service["tmpfs"]),
        f"--volume={project}",
        f"--volume={state}:{where}",
    ]
