"""A deliberately bad challenger: trained on labels turned round, and sent on its way past the gate."""

from __future__ import annotations

import os
from dataclasses import replace

from skewless.operations.rollout import begin
from skewless.project import Project
from skewless.training.train import train


def send_bad_challenger(project: Project, model: str) -> str:
    """Train a version that takes every late flight for one on time, and let its rollout begin; return the version."""
    dataset, spec = project.dataset(model), project.applied.model(model)
    threads = project.settings.threads or os.cpu_count() or 1
    turned = replace(dataset, labels=1.0 - dataset.labels)
    trained = train(turned, spec, project.store, threads=threads, now_us=project.clock.now_us())
    begin(project, model, trained.package.version)
    return trained.package.version
