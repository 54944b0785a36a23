"""Prediction server: HTTP and Open Inference Protocol APIs over one scoring core."""

# This folder is a part of `skewless`, which has a link to it: under a second name, each module would be loaded twice.
if __name__ != "skewless.serving":
    raise ImportError(f"{__name__} is a part of skewless. Fix: import skewless.serving")
