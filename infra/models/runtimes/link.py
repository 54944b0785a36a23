"""Applies a model's link function with its own library to margins of another runtime.

The library scores a model with the same objective whose trees only pass the margin through.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.lightgbm_capi import LightGBMRuntime
from skewless.infra.models.runtimes.port import Scores, reshape_outputs
from skewless.infra.models.runtimes.xgboost_capi import VALUE, CallArguments, XGBoostRuntime, array_interface

# exp of a larger number is infinite.
_LARGEST_EXPONENT = 709.782712893384
# Both linear leaves return the feature, so the split does not matter.
_LEAF = """Tree={output}
num_leaves=2
num_cat=0
split_feature={output}
split_gain=1
threshold=0
decision_type=2
left_child=-1
right_child=-2
leaf_value=0 0
leaf_weight=1 1
leaf_count=1 1
internal_value=0
internal_weight=2
internal_count=2
is_linear=1
leaf_const=0 0
num_features=1 1
leaf_features={output}  {output}\x20
leaf_coeff=1  1\x20
shrinkage=1

"""


class LightGBMLink(LightGBMRuntime):
    """A LightGBM model with the same objective; its features are the margins, and its linear leaves return them."""

    def __init__(self, model: bytes, name: str) -> None:
        super().__init__(_replace_trees(model.decode(), name).encode(), f"link of {name}")

    def scores(self, margins: Scores) -> Scores:
        """Return the library's scores of margins of shape ``(n,)``, or ``(n, k)`` of k outputs, bit for bit."""
        return self.score(np.ascontiguousarray(margins.reshape(len(margins), self.n_features)))


def _replace_trees(model: str, name: str) -> str:
    head, trees, rest = model.partition("\nTree=0\n")
    end = rest.find("end of trees")
    outputs = re.search(r"(?m)^num_tree_per_iteration=(\d+)$", head)
    # `average_output` marks a random forest, whose trees are averaged, not added.
    if not trees or end < 0 or outputs is None or re.search(r"(?m)^average_output$", head):
        raise PackageError(name, "has no link that can be separated from its trees", fix="score it with LightGBM")
    n = int(outputs[1])
    leaves = [_LEAF.format(output=output) for output in range(n)]
    fields = {
        "max_feature_idx": str(n - 1),
        "feature_names": " ".join(f"margin_{output}" for output in range(n)),
        "feature_infos": " ".join(["none"] * n),
        # LightGBM cuts the text into trees by these lengths.
        "tree_sizes": " ".join(str(len(leaf)) for leaf in leaves),
    }
    for key, value in fields.items():
        head = re.sub(rf"(?m)^{key}=.*$", f"{key}={value}", head)
    # It has one number for each feature of the original model.
    head = re.sub(r"(?m)^monotone_constraints=.*\n", "", head)
    return f"{head}\n{''.join(leaves)}{rest[end:]}"


class XGBoostLink(XGBoostRuntime):
    """An XGBoost model with the same objective and empty trees; the margins are its base margins.

    Args:
        model: JSON of the model.
        name: its name in errors.

    Attributes:
        base: the base margin to which trees are added, float32, shape ``(n_outputs,)``.
    """

    def __init__(self, model: bytes, name: str) -> None:
        super().__init__(_remove_trees(model, name), f"link of {name}")
        self.base = self.margin(np.zeros((1, self.n_features))).astype(np.float32).reshape(-1)

    def scores(self, margins: Scores) -> Scores:
        """Return scores of margins that are float32 numbers, widened; see LightGBMLink."""
        self._require_open()
        rows, base = len(margins), np.ascontiguousarray(margins, dtype=np.float32)
        if rows == 0:
            return reshape_outputs(np.empty(0), 0, self.n_outputs)
        # Arguments of its own, because nothing removes base margins from them. XGBoost copies the margins.
        arguments = CallArguments(self.library, self._name, self.n_features)
        try:
            text = array_interface(base)
            self._call("XGDMatrixSetInfoFromInterface", arguments.proxy, b"base_margin", text)
            self._predict_dense(np.zeros((rows, self.n_features)), rows, VALUE, arguments)
            return reshape_outputs(arguments.copy_result(rows * self.n_outputs), rows, self.n_outputs)
        finally:
            arguments.free()


def _remove_trees(model: bytes, name: str) -> bytes:
    try:
        content: dict[str, Any] = json.loads(model)
        booster = content["learner"]["gradient_booster"]
        kind = booster["name"]
        if kind == "dart":  # the margins already contain the trees' weights
            booster = content["learner"]["gradient_booster"] = booster["gbtree"] | {"name": "gbtree"}
        trees = booster["model"]
        trees.pop("weight_drop", None)
        trees["gbtree_model_param"] |= {"num_parallel_tree": "1"}
        outputs = max(1, int(content["learner"]["learner_model_param"]["num_class"]))
        features = content["learner"]["learner_model_param"]["num_feature"]
    except (ValueError, KeyError, TypeError) as error:
        raise PackageError(name, f"is not a tree model in JSON: {error}", fix="score it with XGBoost") from error
    trees["trees"] = [_empty_tree(tree, features) for tree in range(outputs)]
    trees["tree_info"] = list(range(outputs))
    trees["gbtree_model_param"]["num_trees"] = str(outputs)
    trees["iteration_indptr"] = [0, outputs]
    return json.dumps(content).encode()


def _empty_tree(tree: int, features: str) -> dict[str, Any]:
    size = {"num_deleted": "0", "num_feature": features, "num_nodes": "1", "size_leaf_vector": "1"}
    empty = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
    zero = ("base_weights", "loss_changes", "split_conditions")
    return {
        **{key: [] for key in empty},
        # -0.0, because 0.0 would change a base of -0.0, the margin of a base score of 0.5.
        **{key: [-0.0] for key in zero},
        **{key: [0] for key in ("default_left", "split_indices", "split_type")},
        **{key: [-1] for key in ("left_children", "right_children")},
        "sum_hessian": [1.0],
        # XGBoost's number for the parent of a root.
        "parents": [2**31 - 1],
        "id": tree,
        "tree_param": size,
    }


# By the library that trained the model.
LINKS: Mapping[str, type[LightGBMLink | XGBoostLink]] = {"lightgbm": LightGBMLink, "xgboost": XGBoostLink}


def sigmoid(value: float) -> float:
    """Return ``1 / (1 + exp(-value))`` by the C library, as the libraries do; numpy's exp has other bits."""
    return 0.0 if value < -_LARGEST_EXPONENT else 1.0 / (1.0 + math.exp(-value))
