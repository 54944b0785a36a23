"""A model with bounds is replayed like any other: flags alter no bit of vector or score."""

from __future__ import annotations

import numpy as np

from skewless.contract.bounds import Bound, Bounds
from skewless.infra.models.packages.package import open_package
from skewless.training.train import train
from tests.worlds.trained import MODEL, Sandbox, ask

FEW = "card_days__payments_7d"


def test_flagged_predictions_replay_to_the_last_bit(place: Sandbox) -> None:
    project = place.project
    bounds = Bounds(features={FEW: Bound(high=3.0)}, fields={"amount": Bound(high=10.0)})
    spec = project.applied.model(MODEL)
    trained = train(project.training_set(MODEL), spec, project.store, threads=1, now_us=place.now_us(), bounds=bounds)
    version = trained.package.version
    assert Bounds.from_dict(open_package(project.store, MODEL, version).bounds) == bounds
    model = place.load(version)
    answer = place.predict(ask(40), model=model)
    flagged = [bool(names) for names in answer.out_of_bounds or []]
    assert any(flagged)
    assert not all(flagged)
    column = answer.matrix[:, model.assembler.labels.index(FEW)]
    assert [FEW in names for names in answer.out_of_bounds or []] == (np.nan_to_num(column) > 3.0).tolist()
    report = project.replay()
    assert report.ok, report.lines()
    assert (report.compared, report.different) == (40, 0)
