"""Temperature calibration before fusing: every member's confidence is made honest, so that none shouts the rest down.

A network trained on hard labels says 0.99 where it is right nine times in ten; a mean then follows whoever is
least modest. One number a member mends most of that: its logits are divided by a temperature, which the held-out
rows choose by log-loss. Above 1 it is less sure than it said. Of single labels no answer changes, only how sure it is.

Source: Guo, Pleiss, Sun & Weinberger (2017), "On Calibration of Modern Neural Networks",
https://arxiv.org/abs/1706.04599, section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from ftlib.errors import UnsupportedError
from ftlib.fusion._likelihood import log_likelihood
from ftlib.fusion._logarithms import log, log_odds

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target
    from ftlib.targets.layout import Layout

Calibrate = Literal["temperature"]

COLDEST, HOTTEST = 0.05, 20.0
"""Where temperatures are looked for: rows that any confidence fits (all right, or all wrong) end at a bound."""


def check_calibrate(calibrate: Calibrate | None, target: Target, fusion: str) -> None:
    """Refuse to calibrate numbers (UnsupportedError)."""
    if calibrate and target.unit_kind == "value":
        raise UnsupportedError(
            f"{fusion}: calibrate: {calibrate} needs probabilities, and a number comes without any; "
            "leave calibrate out."
        )


def calibrated(
    scores: np.ndarray, references: np.ndarray, target: Target, calibrate: Calibrate | None
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return the members' scores, calibrated where that is asked for, and the temperatures (else ()).

    Args:
        scores: Of the rows to fit on, shape (num_members, num_units, num_outputs).
        references: Their gold answers.
        target: Over the layout of these rows.
        calibrate: What a fusion's field says.
    """
    if calibrate is None:
        return scores, ()
    found = tuple(temperature(member, references, target) for member in scores)
    return softened(scores, found, kind=target.unit_kind, layout=target.layout), found


def temperature(scores: np.ndarray, references: np.ndarray, target: Target) -> float:
    """Return the temperature at which one member's log-loss on held-out rows is lowest.

    Args:
        scores: Shape (num_units, num_outputs).
        references: The same rows' gold answers.
        target: Over the layout of these rows.
    """
    import numpy as np
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        at = _at(scores, float(np.exp(log_temperature)), target.unit_kind, target.layout)
        return -log_likelihood(at, references, target)

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return round(float(np.exp(found.x)), 6)


def softened(
    scores: np.ndarray, temperatures: Sequence[float], *, kind: str, layout: Layout | None = None
) -> np.ndarray:
    """Return the members' scores at their temperatures, same shape, float64.

    Args:
        scores: Shape (num_members, num_units, num_outputs).
        temperatures: One a member, > 0.
        kind: The target's unit_kind; not "value".
        layout: Of the rows; candidates need it.
    """
    import numpy as np

    members = zip(np.asarray(scores, dtype=np.float64), temperatures, strict=True)
    return np.stack([_at(member, heat, kind, layout) for member, heat in members])


def _at(scores: np.ndarray, heat: float, kind: str, layout: Layout | None) -> np.ndarray:
    from scipy.special import expit, softmax

    if kind == "multi_label":
        return expit(log_odds(scores) / heat)
    if kind == "candidate":
        return _candidates(scores ** (1 / heat), layout)
    return softmax(log(scores) / heat, axis=-1)


def _candidates(support: np.ndarray, layout: Layout | None) -> np.ndarray:
    """Return supports whose products sum to 1 in each row, so that members stay on one scale."""
    import numpy as np

    if layout is None:
        raise ValueError("candidates are compared within their row; the layout is needed")
    total = layout.sums(support.prod(-1))[layout.row_of]
    scale = np.where(total > 0, total, 1.0) ** (1 / support.shape[-1])
    return support / scale[:, None]
