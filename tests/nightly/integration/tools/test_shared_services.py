"""`python -m tools.shared_services`: a command with its servers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

_ROOT = Path(__file__).parents[4]
_COMMAND = """
import json, os, psycopg, redis
names = [name for name in os.environ if name.startswith("SKEWLESS_") and name.endswith("_URL")]
redis.Redis.from_url(os.environ["SKEWLESS_REDIS_URL"]).ping()
with psycopg.connect(os.environ["SKEWLESS_DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE t (n int)")
print(json.dumps({name: os.environ[name] for name in names}), flush=True)
raise SystemExit(3)
"""


# In make test, on SIGTERM: it ends the command, and then the servers as after any command.
@pytest.mark.parametrize("signalled", [pytest.param(False, marks=pytest.mark.soak), True])
def test_servers_end_with_their_command_and_on_sigterm(*, signalled: bool) -> None:
    code = _COMMAND.replace("raise", "import time; time.sleep(60); raise") if signalled else _COMMAND
    command = [sys.executable, "-m", "tools.shared_services", sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        variables = json.loads(next(line for line in process.stdout if line.startswith("{")))
        if signalled:
            process.terminate()
        assert process.wait(60) == (128 + signal.SIGTERM if signalled else 3)
    assert {"SKEWLESS_REDIS_URL", "SKEWLESS_DATABASE_URL"} <= set(variables)
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(variables["SKEWLESS_REDIS_URL"]) as client:
        client.ping()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(variables["SKEWLESS_DATABASE_URL"])
