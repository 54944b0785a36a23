"""Writes a bill of materials in CycloneDX 1.6 from locked requirements; equal requirements give equal bytes.

It names no registry and no machine; licences are those of the installed packages. Run by ``make lock``:
``python -m tools.sbom requirements.txt sbom.json``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from skewless.version import __version__

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+))?")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"#\s+(?:via\s+)?(\S+)")


@dataclass(kw_only=True)
class Pin:
    """A locked requirement.

    Args:
        marker: environment marker; empty: installed everywhere.
        hashes: SHA-256 of each file that may be installed.
        via: packages that require it.
    """

    name: str
    version: str
    marker: str = ""
    hashes: list[str] = field(default_factory=list)
    via: list[str] = field(default_factory=list)

    @property
    def purl(self) -> str:
        """Return the package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_pins(text: str) -> list[Pin]:
    """Return the requirements in a file of ``uv pip compile``, in order.

    >>> [(pin.purl, pin.via) for pin in read_pins(chr(10).join(["a==1", "    # via", "    #   b", "    #   c"]))]
    [('pkg:pypi/a@1', ['b', 'c'])]
    """
    pins: list[Pin] = []
    for line in text.splitlines():
        if match := _PIN.match(line):
            marker = (match["marker"] or "").strip()
            pins.append(Pin(name=match["name"].lower(), version=match["version"], marker=marker))
        elif pins:
            pins[-1].hashes += _HASH.findall(line)
            via = _VIA.match(line.strip())
            pins[-1].via += [via[1]] if via and via[1] != "via" else []
    return pins


def make_bill(pins: list[Pin], project: str, version: str) -> Mapping[str, Any]:
    """Return the bill of materials as plain JSON values."""
    root = f"pkg:pypi/{project}@{version}"
    by_name: dict[str, list[Pin]] = {}
    for pin in pins:
        by_name.setdefault(pin.name, []).append(pin)
    dependencies: dict[str, set[str]] = {ref: set() for ref in (root, *(pin.purl for pin in pins))}
    for pin in pins:
        for name in pin.via:
            dependents = [dependent.purl for dependent in by_name.get(name, [])] or (
                [root] if name.startswith(project) else []
            )
            for dependent in dependents:
                dependencies[dependent].add(pin.purl)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "library", "bom-ref": root, "name": project, "version": version}},
        "components": [_component(pin) for pin in pins],
        "dependencies": [{"ref": ref, "dependsOn": sorted(match)} for ref, match in sorted(dependencies.items())],
    }


def read_licence(name: str) -> str:
    """Return the licences that an installed package names, in one line; empty: it names none, or is not installed."""
    try:
        facts = metadata(name)
    except PackageNotFoundError:
        return ""
    classifiers = [text.rpartition(" :: ")[2] for text in facts.get_all("Classifier") or () if "License ::" in text]
    own = {key: " ".join(facts.get_all(key) or ()) for key in ("License-Expression", "License")}
    texts = [own["License-Expression"], ", ".join(classifiers), own["License"].partition("\n")[0]]
    return next((text.strip() for text in texts if text), "")


def _component(pin: Pin) -> dict[str, Any]:
    licence = read_licence(pin.name)
    facts = [("skewless:marker", pin.marker)] if pin.marker else []
    facts += [("skewless:sha256", digest) for digest in pin.hashes]
    return {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.purl,
        **({"licenses": [{"license": {"name": licence}}]} if licence else {}),
        "properties": [{"name": name, "value": value} for name, value in facts],
    }


def main(source: Path, target: Path) -> None:
    """Write the bill of materials of a requirements file."""
    body = make_bill(read_pins(source.read_text(encoding="utf-8")), "skewless", __version__)
    target.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
