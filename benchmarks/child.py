"""One contestant in a fresh process: ``python -m benchmarks.child MODULE FUNCTION ARGUMENTS REPORT``."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from benchmarks.meter import Meter


def main() -> None:
    """Run the entrant with its JSON arguments and write its report to a file."""
    module, function, arguments, report = sys.argv[1:]
    meter = Meter()
    digest = getattr(importlib.import_module(module), function)(meter, **json.loads(arguments))
    Path(report).write_text(json.dumps(meter.report(digest).as_dict()))


if __name__ == "__main__":
    main()
