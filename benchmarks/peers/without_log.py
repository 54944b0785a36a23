"""Our server, but that it keeps no prediction log: what is left of its rate is what logging costs.

``python -m benchmarks.peers.without_log PORT REPO`` is ``skewless serve`` otherwise.
"""

from __future__ import annotations

import sys
from typing import Any

import skewless.serving.process
from skewless.cli import main
from skewless.serving.prediction.predictor import Predictor


def _without_log(**options: Any) -> Predictor:  # noqa: ANN401 - the predictor's own
    return Predictor(**{**options, "log": None})


if __name__ == "__main__":
    port, repo = sys.argv[1:]
    vars(skewless.serving.process)["Predictor"] = _without_log
    sys.argv = ["skewless", "serve", "--repo", repo, "--port", port]
    main()
