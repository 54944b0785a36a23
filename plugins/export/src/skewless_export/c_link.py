"""Writes the link of a tree table in C: from margins to predictions, in the steps of the library that trained it."""

from __future__ import annotations

from skewless_export.table import TreeFacts

# Where XGBoost clips an exponent.
_XGBOOST_CLIP = "88.7f"


def link_lines(facts: TreeFacts, stem: str) -> list[str]:
    """Return the function of predictions; empty if the table does not describe the link."""
    if facts.link == "other":
        return []
    outputs = f"{stem.upper()}_OUTPUTS"
    body = _softmax(facts, outputs) if facts.link == "softmax" else _each(facts, outputs)
    return [
        f"void {stem}_predict(const double *inputs, double *predictions) {{",
        *_declarations(facts),
        f"    {stem}_margin(inputs, predictions);",
        *([] if facts.divisor == 1.0 else _divide(facts, outputs)),
        *body,
        "}",
    ]


def _declarations(facts: TreeFacts) -> list[str]:
    if facts.link == "softmax":
        kind = "float" if facts.sum_type == "float32" else "double"
        return ["    int i;", f"    {kind} most;", "    double sum = 0;"]
    return ["    int i;"] if facts.link != "identity" or facts.divisor != 1.0 else []


def _divide(facts: TreeFacts, outputs: str) -> list[str]:
    return [
        f"    for (i = 0; i < {outputs}; i++) {{",
        f"        predictions[i] /= {facts.divisor.hex()};",
        "    }",
    ]


def _each(facts: TreeFacts, outputs: str) -> list[str]:
    if facts.link == "identity":
        return []
    is_float = facts.sum_type == "float32"
    if facts.link == "exp":
        lines = [f"        predictions[i] = {'expf((float)predictions[i])' if is_float else 'exp(predictions[i])'};"]
    elif is_float:
        lines = [
            "        float x = -(float)predictions[i];",
            f"        x = x < {_XGBOOST_CLIP} ? x : {_XGBOOST_CLIP};",
            "        x = expf(x) + 1.0f;",
            "        predictions[i] = 1.0f / (x + 1e-16f);",
        ]
    else:
        exponent = "-predictions[i]" if facts.link_scale == 1.0 else f"-{facts.link_scale.hex()} * predictions[i]"
        lines = [f"        predictions[i] = 1.0 / (1.0 + exp({exponent}));"]
    return [f"    for (i = 0; i < {outputs}; i++) {{", *lines, "    }"]


def _softmax(facts: TreeFacts, outputs: str) -> list[str]:
    is_float = facts.sum_type == "float32"
    cast, exp = ("(float)", "expf") if is_float else ("", "exp")
    total = "(float)sum" if is_float else "sum"
    quotient = f"{cast}predictions[i] / {total}"
    return [
        f"    most = {cast}predictions[0];",
        f"    for (i = 1; i < {outputs}; i++) {{",
        f"        most = {cast}predictions[i] > most ? {cast}predictions[i] : most;",
        "    }",
        f"    for (i = 0; i < {outputs}; i++) {{",
        f"        predictions[i] = {exp}({cast}predictions[i] - most);",
        "        sum += predictions[i];",
        "    }",
        f"    for (i = 0; i < {outputs}; i++) {{",
        f"        predictions[i] = {quotient};",
        "    }",
    ]
