"""The contract of every online store for rows, markers, repairs and losses, on DynamoDB."""

from __future__ import annotations

import inspect

import pytest

from tests.contract import test_online, test_stores
from tests.contract.store import RowStore, StorePlace

# Items have at most 400 kB, see test_limits.py; writing processes are in test_project.py.
_OTHERS = {"test_a_row_of_megabytes", "test_2_3_writing_processes_leave_the_highest_rank"}
for _module in (test_online, test_stores):
    for _name, _test in inspect.getmembers(_module, inspect.isfunction):
        if _name.startswith("test_") and _name not in _OTHERS:
            globals()[_name] = _test


@pytest.fixture
def store(online_place: StorePlace) -> RowStore:
    return online_place.rows
