"""The request and the reply of the Open Inference Protocol, as far as one tensor of float64 goes."""

from __future__ import annotations

from pydantic import BaseModel


class Tensor(BaseModel):
    """One tensor, its numbers in one list, row by row."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Infer(BaseModel):
    """A request, and a reply too."""

    inputs: list[Tensor]


class Inferred(BaseModel):
    """A reply."""

    model_name: str
    outputs: list[Tensor]


def scores_reply(scores: list[float]) -> Inferred:
    """Return the reply that holds scores."""
    tensor = Tensor(name="score", shape=[len(scores)], datatype="FP64", data=scores)
    return Inferred(model_name="fraud", outputs=[tensor])
