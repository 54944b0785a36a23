"""An endpoint that reads the same request as ours by FastAPI and pydantic and does nothing."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Row(BaseModel):
    """A pair to score."""

    card_id: int
    shop_id: str


class RequestBody(BaseModel):
    """What our ``POST /predict`` takes."""

    model: str | None = None
    rows: list[Row]
    features: bool = False


app = FastAPI()


@app.post("/predict")
async def predict(ask: RequestBody) -> dict[str, float]:
    """Answer with a number."""
    return {"score": float(len(ask.rows))}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, loop="uvloop", http="httptools")
