"""Lets the processes that tests start keep their priority: the other test workers leave no core for lower ones.

A thread with a tenth of a busy core holds up its test for minutes. ``tests/conftest.py`` says when.
"""

import os

if os.environ.get("TESTS_SHARE_CORES"):
    os.setpriority = lambda *_: None
    os.sched_setscheduler = lambda *_: None
