"""Looks the locked requirements up in an index of advisories; what could not be looked up is said, and is no pass.

Run by ``make audit``: ``python -m tools.audit requirements.txt``. Ends with 0 where each requirement was looked up and
none has an advisory, with 1 where one has, with 2 where not all could be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_COMMAND = ("pip-audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json")
_MOST_SHOWN = 500


def audited(file: str, command: Sequence[str] = _COMMAND) -> tuple[int, list[str]]:
    """Return an exit code, and what to say."""
    try:
        done = subprocess.run([*command, "-r", file], capture_output=True, text=True, check=False)
        found = json.loads(done.stdout)["dependencies"]
    except OSError as error:
        return 2, [f"{command[0]} cannot be run: {error.strerror}. Fix: python -m pip install pip-audit"]
    except (ValueError, KeyError, TypeError):
        why = " ".join(done.stderr.split())[-_MOST_SHOWN:] or f"exit code {done.returncode}"
        return 2, [f"{file}: advisories could not be read, so nothing is known of any requirement: {why}"]
    return judged(file, found)


def judged(file: str, found: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
    """Return the exit code for what was found of each requirement, and what to say.

    >>> judged("r.txt", [{"name": "a", "version": "1", "vulns": []}])
    (0, ['r.txt: 1 requirements looked up, none has an advisory'])
    >>> judged("r.txt", [{"name": "a", "skip_reason": "not found"}])[0]
    2
    """
    missed = [item for item in found if "skip_reason" in item]
    hit = [(item, vuln) for item in found for vuln in item.get("vulns", ())]
    said = [f"{item['name']} {item['version']}: {vuln['id']}, fixed in {_fixes(vuln)}" for item, vuln in hit]
    if missed or not found:
        reason = missed[0]["skip_reason"] if missed else "the file pins nothing"
        said.append(f"{file}: {len(missed)} of {len(found)} requirements could not be looked up: {reason}")
    if hit:
        return 1, said
    return (2, said) if said else (0, [f"{file}: {len(found)} requirements looked up, none has an advisory"])


def _fixes(vuln: dict[str, Any]) -> str:
    return ", ".join(vuln.get("fix_versions", ())) or "no version"


if __name__ == "__main__":
    code, lines = audited(sys.argv[1])
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    sys.exit(code)
