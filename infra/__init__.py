"""Adapters: DuckDB, log, Redis, model runtimes and packages, Feast."""

# This folder is a part of `skewless`, which has a link to it: under a second name, each module would be loaded twice.
if __name__ != "skewless.infra":
    raise ImportError(f"{__name__} is a part of skewless. Fix: import skewless.infra")
