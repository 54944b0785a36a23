"""Checks the locked requirements against an index of advisories; an incomplete check does not pass.

Run by ``make audit``: ``python -m tools.audit requirements.txt``. Exit code 0: all requirements were checked and none
has an advisory; 1: a requirement has an advisory; 2: not all requirements could be checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_COMMAND = ("pip-audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json")
_MAX_CHARS = 500


def check_file(file: str, command: Sequence[str] = _COMMAND) -> tuple[int, list[str]]:
    """Return the exit code and the lines to print."""
    try:
        process = subprocess.run([*command, "-r", file], capture_output=True, text=True, check=False)
        results = json.loads(process.stdout)["dependencies"]
    except OSError as error:
        return 2, [f"{command[0]} cannot be run: {error.strerror}. Fix: python -m pip install pip-audit"]
    except (ValueError, KeyError, TypeError):
        reason = " ".join(process.stderr.split())[-_MAX_CHARS:] or f"exit code {process.returncode}"
        return 2, [f"{file}: advisories could not be read, so no requirement was checked: {reason}"]
    return judge_results(file, results)


def judge_results(file: str, results: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
    """Return the exit code and the lines to print for the results of pip-audit.

    >>> judge_results("r.txt", [{"name": "a", "version": "1", "vulns": []}])
    (0, ['r.txt: 1 requirements checked, none has an advisory'])
    >>> judge_results("r.txt", [{"name": "a", "skip_reason": "not found"}])[0]
    2
    """
    unchecked = [item for item in results if "skip_reason" in item]
    advisories = [(item, vuln) for item in results for vuln in item.get("vulns", ())]
    lines = [f"{item['name']} {item['version']}: {vuln['id']}, fixed in {_fixes(vuln)}" for item, vuln in advisories]
    if unchecked or not results:
        reason = unchecked[0]["skip_reason"] if unchecked else "the file has no requirements"
        lines.append(f"{file}: {len(unchecked)} of {len(results)} requirements could not be checked: {reason}")
    if advisories:
        return 1, lines
    return (2, lines) if lines else (0, [f"{file}: {len(results)} requirements checked, none has an advisory"])


def _fixes(vuln: dict[str, Any]) -> str:
    return ", ".join(vuln.get("fix_versions", ())) or "no version"


if __name__ == "__main__":
    code, lines = check_file(sys.argv[1])
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    sys.exit(code)
