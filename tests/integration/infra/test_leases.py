"""Leases behave alike in SQLite and PostgreSQL: one holder, greater tokens, and fenced former holders."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from skewless.contract.errors import ConflictError
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import Lease, Leases, new_holder
from tests.servers.postgres import ON_SQLITE, address_of


def test_of_many_that_ask_one_gets_a_lease(project_database: Database) -> None:
    leases, ready = Leases(project_database, ttl_s=30), threading.Barrier(12)

    def ask(_: int) -> Lease | None:
        ready.wait()
        return leases.acquire("scheduler", holder=f"h{_}")

    with ThreadPoolExecutor(12) as pool:
        winners = [lease for lease in pool.map(ask, range(12)) if lease is not None]
    assert len(winners) == 1
    assert winners[0].token == 1
    assert leases.read_holder("scheduler") == winners[0].holder


def test_a_later_holder_fences_the_former_in_the_same_transaction(project_database: Database) -> None:
    leases, documents = Leases(project_database, ttl_s=0.05), Documents(project_database, "verdict")
    first = leases.acquire("job", holder="elsewhere-1")
    assert first is not None
    time.sleep(0.1)
    with project_database.transaction():
        leases.check(first)  # expired, but nobody has taken it
        documents.put("x", "first")
    second = leases.acquire("job", holder="elsewhere-2")
    assert second is not None
    assert second.token == first.token + 1

    def write() -> None:
        with project_database.transaction():
            documents.put("x", "stale")
            leases.check(first)

    with pytest.raises(ConflictError, match="lease 'job' with token 1: was lost to elsewhere-2"):
        write()
    assert documents.get("x") == "first"
    assert not leases.renew(first)
    leases.release(first)  # of a former holder: no effect
    leases.check(second)


def test_a_token_never_decreases(project_database: Database) -> None:
    leases = Leases(project_database)
    tokens = []
    for _ in range(4):
        lease = leases.acquire("job")
        assert lease is not None
        tokens.append(lease.token)
        leases.release(lease)
    assert tokens == [1, 2, 3, 4]


def test_a_repeated_request_of_the_holder_keeps_its_token(project_database: Database) -> None:
    leases, holder = Leases(project_database), new_holder()
    first, again = leases.acquire("job", holder=holder), leases.acquire("job", holder=holder)
    assert first == again != None  # noqa: E711 - a lease


def test_a_repeated_request_of_the_holder_renews_the_lease(project_database: Database) -> None:
    """The first expiry would end the lease long before the second."""
    short, long = Leases(project_database, ttl_s=0.2), Leases(project_database, ttl_s=60)
    first, again = short.acquire("job", holder="elsewhere-1"), long.acquire("job", holder="elsewhere-1")
    time.sleep(0.3)
    assert first == again
    assert long.acquire("job", holder="elsewhere-2") is None


def test_a_former_holder_finds_out_and_does_not_release_the_lease_of_the_next(project_database: Database) -> None:
    leases, beats = Leases(project_database, ttl_s=0.3), threading.Event()
    lease = leases.acquire("job", holder="elsewhere-1")
    assert lease is not None
    with leases.renew_until_end(lease, time.monotonic(), beats.set) as renewal:
        assert beats.wait(30)
        assert renewal.is_held
        leases.release(lease)
        other = leases.acquire("job", holder="elsewhere-2")
        deadline = time.monotonic() + 30
        while renewal.is_held:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert other is not None
    leases.check(other)  # the former holder has released its own lease only


@ON_SQLITE
def test_the_lease_of_a_killed_process_is_free_at_once(project_database: Database) -> None:
    program = (
        "import sys, time\n"
        "from skewless.infra.platform.storage.project_state import open_database\n"
        "from skewless.infra.platform.storage.leases import Leases\n"
        "print(Leases(open_database(sys.argv[1]), 600).acquire('job'), flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, address_of(project_database)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "token=1" in process.stdout.readline()
    assert Leases(project_database).acquire("job") is None
    process.kill()
    process.communicate()
    lease = Leases(project_database).acquire("job")
    assert lease is not None
    assert lease.token == 2


def test_a_held_lease_is_renewed_and_given_up(project_database: Database) -> None:
    leases = Leases(project_database, ttl_s=0.3)
    with leases.hold("job") as lease:
        time.sleep(1.0)
        leases.check(lease)
        with leases.try_hold("job") as other:
            assert other is None
    assert leases.read_holder("job") is None
    with leases.try_hold("job") as other:
        assert other is not None


def test_waiting_holders_take_turns(project_database: Database) -> None:
    leases, inside, most = Leases(project_database), [0], [0]

    def work(_: int) -> None:
        with leases.hold("job"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1
        project_database.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(12)))
    assert most == [1]
    assert project_database.query("SELECT token FROM leases WHERE name = 'job'") == [(12,)]
