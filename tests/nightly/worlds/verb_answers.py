"""What a command and its method answer alike: parts of JSON that do not change from call to call."""

from __future__ import annotations

from typing import Any


def states(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """Keep of runs what does not depend on time."""
    runs = (answer.get("jobs") or answer["runs"]) if isinstance(answer, dict) else answer
    return [{name: run[name] for name in ("job", "state", "cause")} for run in runs]


def verdicts(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """Keep of findings what does not depend on the machine's load, or on whether a private store runs just now."""
    findings = answer["checks"] if isinstance(answer, dict) else answer
    return [finding["name"] for finding in findings if finding["name"] not in {"online store", "clock"}]


def timeless(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """Keep of gates what does not depend on the machine's load."""
    return [{**report, "seconds": None} for report in answer["reports"]]


def nameless(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """Keep of what was written to the log what is not the name of a file."""
    return {name: answer[name] for name in ("rows", "kinds")}


def keys(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """Keep of keys what is not about this moment."""
    listed = answer["keys"] if isinstance(answer, dict) else answer
    return [key["name"] for key in listed]


def offline(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """Keep of the status what does not depend on whether a private store runs just now."""
    views = [{name: view[name] for name in view if "online" not in name} for view in answer["views"]]
    return {name: value for name, value in answer.items() if name != "online"} | {"views": views}


def size_of(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """Keep of a backup what does not depend on the time."""
    return {name: answer[name] for name in ("folder", "files")}


def scores(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """Keep of predictions what is not their id."""
    return [{**item, "id": None} for item in answer["predictions"]]
