"""A policy for payments: lists first, then a threshold for each amount."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[np.float64]]
Words = dict[str, npt.NDArray[np.object_]]


def act(inputs: Columns) -> Words:
    """Return the action about each payment, and why."""
    score, amount = inputs["score"], inputs["amount"]
    limit = np.where(amount > 100.0, 0.05, 0.2)
    is_risky, is_known = score >= limit, inputs["card_days__mean_amount_7d"] == inputs["card_days__mean_amount_7d"]
    action = np.where(is_risky, np.where(is_known, "decline", "review"), "approve").astype(object)
    action = np.where(inputs["trusted"], "approve", np.where(inputs["stolen"], "decline", action)).astype(object)
    reasons = np.where(inputs["trusted"], "trusted", np.where(inputs["stolen"], "stolen_card", "")).astype(object)
    reasons = reasons + np.where(is_risky, " score_over_limit", "").astype(object)
    return {"action": action, "reasons": reasons}


def act_on_first(inputs: Columns) -> Words:
    """Depend on other rows, which is refused."""
    over = inputs["score"] > inputs["score"][0]
    return {"action": np.where(over, "decline", "approve").astype(object), "reasons": np.full(len(over), "", object)}


def act_otherwise(inputs: Columns) -> Words:
    """Return an action that is not declared."""
    n = len(inputs["score"])
    return {"action": np.full(n, "refer", object), "reasons": np.full(n, "", object)}


def act_on_list(inputs: Columns) -> Words:
    """Decline what is on the list, and approve the rest."""
    action = np.where(inputs["stolen"], "decline", "approve").astype(object)
    return {"action": action, "reasons": np.where(inputs["stolen"], "stolen_card", "").astype(object)}
