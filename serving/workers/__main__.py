"""Starts one worker, by its supervisor: ``python -m skewless.serving.workers``."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run a worker; return its exit code."""
    # Imports make most objects of a worker, and keep them: looking for garbage among them is a third of their time.
    gc.disable()
    from skewless.serving.workers import worker  # noqa: PLC0415 - see above

    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
