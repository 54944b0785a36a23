"""The check of each run of `make test`: a document of one process is read by another, and a conflict is seen."""

from __future__ import annotations

from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import open_database
from skewless_postgres.database import PostgresDatabase


def test_a_document_is_read_in_its_schema_alone(postgres_url: str) -> None:
    mark = "&" if "?" in postgres_url else "?"
    mine, other = (open_database(f"{postgres_url}{mark}schema={name}") for name in ("mine", "other"))
    Documents(mine, "verdict").put("x", {"a": 1})
    again = PostgresDatabase(f"{postgres_url}{mark}schema=mine")
    assert Documents(again, "verdict").get("x") == {"a": 1}
    assert Documents(other, "verdict").get("x") is None
    assert abs(again.now_us() - other.now_us()) < 60_000_000
    again.close()
