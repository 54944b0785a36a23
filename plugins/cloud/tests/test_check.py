"""The check of each run of `make test`: an object is the same for two machines, and an altered one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.project_state import open_storage
from skewless_cloud.storage import CloudStorage


def test_an_object_of_one_machine_is_read_by_another_and_not_after_it_was_altered(
    bucket_url: str, tmp_path: Path
) -> None:
    first, second, third = (open_storage(tmp_path / name, bucket_url, 10**9) for name in ("a", "b", "c"))
    stored = first.put("log/x.parquet", b"rows")
    assert second.local_path(stored).read_bytes() == b"rows"
    assert [item.name for item in second.list_objects("log")] == ["log/x.parquet"]
    assert isinstance(first, CloudStorage)
    first._upload("log/x.parquet", memoryview(b"ROWS"))
    with pytest.raises(StoreError, match="its content has changed since it was written"):
        third.local_path(stored)
