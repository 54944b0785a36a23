"""A worker process of the engine ``processes``: a task per line on stdin, an outcome per line on stdout."""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading

from skewless.infra.reads.engines.task import execute

_YOUNG_OBJECTS = 50_000  # between two looks at the youngest objects: the imports of the first task keep all of theirs


def main() -> None:
    """Run tasks until stdin ends: its driver has closed it, or was killed."""
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    # Libraries may print: only outcomes go to the pipe.
    with os.fdopen(os.dup(1), "wb", buffering=0) as outcomes:
        os.dup2(2, 1)
        tasks = queue.SimpleQueue[bytes]()
        threading.Thread(target=_read_tasks, args=(tasks,), daemon=True).start()
        while True:
            line = memoryview(execute(tasks.get()).encode() + b"\n")
            while line:
                line = line[outcomes.write(line) :]


def _read_tasks(tasks: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        tasks.put(line)
    # Also in the middle of a task: nobody waits for its result.
    os._exit(0)


if __name__ == "__main__":
    main()
