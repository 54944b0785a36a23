"""`python -m tools.shared_services`: a command with its servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import redis

_ROOT = Path(__file__).parents[3]
_COMMAND = """
import json, os, psycopg, redis
names = [name for name in os.environ if name.startswith("SKEWLESS_") and name.endswith("_URL")]
redis.Redis.from_url(os.environ["SKEWLESS_REDIS_URL"]).ping()
with psycopg.connect(os.environ["SKEWLESS_DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE t (n int)")
print(json.dumps({name: os.environ[name] for name in names}))
raise SystemExit(3)
"""


def test_a_command_finds_its_servers_and_they_end_with_it() -> None:
    command = [sys.executable, "-m", "tools.shared_services", sys.executable, "-c", _COMMAND]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    variables = json.loads(done.stdout.splitlines()[-1])
    assert {"SKEWLESS_REDIS_URL", "SKEWLESS_DATABASE_URL"} <= set(variables)
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(variables["SKEWLESS_REDIS_URL"]) as client:
        client.ping()
