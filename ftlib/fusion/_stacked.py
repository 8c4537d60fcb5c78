"""Stacked combiners: features of the members' scores, and fitted learners as plain arrays.

Arrays, not pickled estimators, so that a combiner is data: the same bytes for the same fit, safe to open, and
independent of the scikit-learn that reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.files import write_json
from ftlib.fusion._logarithms import log, log_odds
from ftlib.fusion._mean import as_support, read_combiner
from ftlib.fusion.base import Combiner
from ftlib.targets.candidate_features import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from ftlib.targets.layout import Layout

SMALLEST = 1e-6
"""Probabilities are kept this far from 0 and 1, so that one sure member's log-odds stay within reach of the rest."""


def features(scores: np.ndarray, kind: str, layout: Layout | None = None, described: Sequence[str] = ()) -> np.ndarray:
    """Return what the learners see of the members, shape (num_problems, num_units, num_features).

    A label is a problem of its own, whose features are the members' log-odds of that label: so it has few numbers to
    learn, however many labels there are (Seewald 2002, "How to Make Stacking Better and Faster While Also Taking Care
    of an Unknown Weakness", StackingC: better than every label's probability for every label, most of all where labels
    are many). Of two exclusive labels, one problem decides. A value is one problem: the members' values. So is how good
    a candidate is: the logarithms of all factors of its support by all members, then what describes it.

    Args:
        scores: Shape (num_members, num_units, num_outputs).
        kind: The target's unit_kind.
        layout: Which candidates each row has; None of other kinds.
        described: Names of what else is told of candidates: see `ftlib.targets.candidate_features`.
    """
    if kind == "value":
        return scores[..., 0].T[None]
    if kind == "candidate":
        return _of_candidates(scores, layout, described)
    if kind == "single_label" and scores.shape[-1] == 2:
        scores = scores[..., 1:]
    return log_odds(scores, SMALLEST).transpose(2, 1, 0)


def _of_candidates(scores: np.ndarray, layout: Layout | None, described: Sequence[str]) -> np.ndarray:
    import numpy as np

    num_members, num_units, num_factors = scores.shape
    support = log(scores, SMALLEST).transpose(1, 0, 2).reshape(num_units, num_members * num_factors)
    return np.concatenate([support, describe(described, scores, rows_of(layout))], axis=1)[None]


def rows_of(layout: Layout | None) -> Layout:
    """Return the layout, which candidates make no sense without."""
    if layout is None:
        raise ValueError("candidates are stacked row by row; their layout is needed")
    return layout


# -- learners as arrays --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """Fitted linear learners.

    Attributes:
        coefficients: Shape (num_problems, num_features).
        intercepts: Shape (num_problems,).
    """

    coefficients: np.ndarray
    intercepts: np.ndarray

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """Return each problem's logits or values, shape (num_rows, num_problems)."""
        # Member by member, not a matrix product: that rounds a row differently in batches of different size.
        total = self.intercepts
        for member in range(inputs.shape[2]):
            total = total + inputs[..., member].T * self.coefficients[:, member]
        return total

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is saved."""
        return dict(vars(self))


@dataclass(frozen=True)
class Trees:
    """Fitted regression trees, which add to the members' mean; all arrays but the last two have a row a tree.

    Attributes:
        problem: The problem each tree belongs to, shape (num_trees,).
        feature: The feature a node asks for; -1 at a leaf. Shape (num_trees, num_nodes), as those that follow.
        threshold: Rows up to it go left.
        left: The node for these.
        right: The node for the others.
        value: What a leaf adds, learning rate included.
        depth: Steps from the root to the deepest leaf, shape (1,).
        num_scores: How many of the features, from the first, are members' scores, shape (1,).
    """

    problem: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    depth: np.ndarray
    num_scores: np.ndarray

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """Return each problem's logits or values, shape (num_rows, num_problems)."""
        import numpy as np

        total = inputs[..., : int(self.num_scores[0])].mean(-1).T.copy()
        rows = np.arange(inputs.shape[1])
        compared = inputs.astype(np.float32)  # as scikit-learn compares them
        for tree, problem in enumerate(self.problem):
            node = np.zeros(len(rows), dtype=np.int64)
            for _ in range(int(self.depth[0])):
                feature = self.feature[tree, node]
                goes_left = compared[problem, rows, np.maximum(feature, 0)] <= self.threshold[tree, node]
                step = np.where(goes_left, self.left[tree, node], self.right[tree, node])
                node = np.where(feature < 0, node, step)
            total[:, problem] += self.value[tree, node]
        return total

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is saved."""
        return dict(vars(self))

    @classmethod
    def export(cls, trees: list[tuple[int, Any]], learning_rate: float, num_scores: int) -> Trees:
        """Return scikit-learn's regression trees as arrays.

        Args:
            trees: (problem, DecisionTreeRegressor) each.
            learning_rate: What every leaf is multiplied by.
            num_scores: Features whose mean the trees add to.
        """
        import numpy as np

        fitted = [estimator.tree_ for _, estimator in trees]
        width = max(tree.node_count for tree in fitted)

        def table(name: str, dtype: type) -> np.ndarray:
            padded = np.zeros((len(fitted), width), dtype=dtype)
            for row, tree in zip(padded, fitted, strict=True):
                row[: tree.node_count] = getattr(tree, name).reshape(tree.node_count)
            return padded

        left = table("children_left", np.int32)
        return cls(
            problem=np.array([problem for problem, _ in trees], dtype=np.int32),
            feature=np.where(left < 0, np.int32(-1), table("feature", np.int32)),
            threshold=table("threshold", np.float64),
            left=left,
            right=table("children_right", np.int32),
            value=learning_rate * table("value", np.float64),
            depth=np.array([max(tree.max_depth for tree in fitted)], dtype=np.int32),
            num_scores=np.array([num_scores], dtype=np.int32),
        )


LEARNERS: dict[str, type[Linear] | type[Trees]] = {"linear": Linear, "trees": Trees}


# -- the combiner --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stacked(Combiner):
    """What stacking fitted.

    Attributes:
        kind: The target's unit_kind.
        num_outputs: The target's outputs.
        seen: The problems that were learned, as `features` numbers them; other labels keep the members' mean score.
        learner: Gives the logits of the problems that were learned, or the value.
        shift: Added to every logit of a multi-label target, to move its decisions.
        described: What the learner is told of candidates beside their support.
        note: What was not as hoped for; "" for nothing.
    """

    kind: str
    num_outputs: int
    seen: tuple[int, ...]
    learner: Linear | Trees
    shift: float = 0.0
    described: tuple[str, ...] = ()
    note: str = ""

    def __call__(self, scores: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """Return stacked scores, shape (num_units, num_outputs)."""
        import numpy as np
        from scipy.special import expit

        values = np.asarray(scores, dtype=np.float64)
        outputs = self.outputs(values, layout) + self.shift
        if self.kind == "value":
            return outputs
        if self.kind == "candidate":
            return as_support(shared_out(outputs[:, 0], rows_of(layout)), self.num_outputs)
        mean = values.sum(0) / len(values)
        if self.kind == "single_label":
            return self._one_label(outputs, mean)
        mean[:, self.seen] = expit(outputs)
        return mean

    def _one_label(self, outputs: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Share among the learned labels what the members' mean leaves to them."""
        import numpy as np
        from scipy.special import softmax

        if self.num_outputs == 2:
            return softmax(np.concatenate([np.zeros_like(outputs), outputs], axis=1), axis=1)
        others = np.delete(mean, self.seen, axis=1).sum(1, keepdims=True)
        mean[:, self.seen] = (1 - others) * softmax(outputs, axis=1)
        return mean

    def outputs(self, scores: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """Return the learner's outputs, shape (num_units, number seen), without the shift."""
        return self.learner.outputs(features(scores, self.kind, layout, self.described)[list(self.seen)])

    def save(self, folder: Path) -> None:
        """Write combiner.json and combiner.npz."""
        import numpy as np

        name = next(name for name, learner in LEARNERS.items() if isinstance(self.learner, learner))
        value = {"combiner": "stacked", "kind": self.kind, "num_outputs": self.num_outputs, "seen": list(self.seen)}
        value |= {"learner": name, "shift": self.shift}
        more = {"described": list(self.described), "note": self.note}
        write_json(folder / "combiner.json", {**value, **{key: told for key, told in more.items() if told}})
        np.savez(folder / "combiner.npz", allow_pickle=False, **self.learner.arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> Stacked:
        """Read combiner.json and combiner.npz."""
        import numpy as np

        value = read_combiner(folder, "stacked")
        with np.load(folder / "combiner.npz", allow_pickle=False) as arrays:
            learner = LEARNERS[value["learner"]](**arrays)
        more = {"described": tuple(value.get("described", ())), "note": value.get("note", "")}
        return cls(value["kind"], value["num_outputs"], tuple(value["seen"]), learner, value["shift"], **more)


def shared_out(outputs: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the softmax of each row's candidates, shape (num_units,)."""
    import numpy as np

    highest = outputs[layout.best(outputs)] if len(outputs) else np.zeros(layout.num_rows)
    odds = np.exp(outputs - highest[layout.row_of])
    return odds / layout.sums(odds)[layout.row_of]
