"""Validation: data gates, evaluation, drift, live quality, parity and replay."""

# This folder is a part of `skewless`, which has a link to it: under a second name, each module would be loaded twice.
if __name__ != "skewless.validation":
    raise ImportError(f"{__name__} is a part of skewless. Fix: import skewless.validation")
