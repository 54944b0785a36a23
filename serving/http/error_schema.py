"""Errors as the OpenAPI document describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field


class ErrorParts(BaseModel):
    """An error, whole and in its parts."""

    message: str = Field(description="all of it in one line")
    kind: str
    thing: str = Field(description="what it is about")
    problem: str = Field(description="what is wrong with it")
    fix: str = Field(description="what to do about it")
    value: bool | int | str | None = Field(None, description="the offending value, where there is one")


class ErrorReply(BaseModel):
    """Every error of a route that follows no foreign protocol."""

    error: ErrorParts


# As long as a route says what its errors are, FastAPI does not invent another shape for them.
ERRORS: Mapping[int | str, dict[str, Any]] = {"default": {"model": ErrorReply, "description": "why not"}}
