"""What problems with labels share: the fields' types, the target they make, and how labels are bound."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ftlib.errors import DataError, ParamsError, unknown
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.reading import check
from ftlib.targets.single_label import SingleLabel

if TYPE_CHECKING:
    from ftlib.targets.base import Target


def _as_names(value: Any) -> Any:
    """Take ids for names; refuse what YAML made a boolean of an unquoted yes or no."""
    if not isinstance(value, (list, tuple)):
        return value
    for item in value:
        if isinstance(item, bool):
            raise PydanticCustomError(
                "label_is_boolean",
                "a label was read as {item}: YAML takes yes, no, true, false, on and off for booleans; quote it",
                {"item": str(item).lower()},
            )
    return tuple(str(item) if isinstance(item, int) else item for item in value)


def _checked(labels: tuple[str, ...]) -> tuple[str, ...]:
    try:
        check(labels)
    except ParamsError as error:
        raise PydanticCustomError("labels", "{line}", {"line": str(error).removeprefix("labels: ")}) from None
    return labels


Labels = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_names, json_schema_input_type=list[str | int]),
    AfterValidator(_checked),
]
"""Label names, in the order of their ids."""

Threshold = Annotated[float, Field(gt=0, lt=1)]
"""A probability, 0 and 1 excluded."""


def check_enough(labels: tuple[str, ...], multi_label: bool) -> None:
    """Refuse one label alone, unless rows may have none."""
    if len(labels) == 1 and not multi_label:
        raise PydanticCustomError(
            "labels",
            "labels: {label} alone leaves nothing to learn; name all labels, or none",
            {"label": repr(labels[0])},
        )


@lru_cache(maxsize=64)  # asked for at every training step
def target(labels: tuple[str, ...], multi_label: bool, threshold: float) -> Target:
    """Return the target of a classification problem."""
    return MultiLabel(labels, threshold) if multi_label else SingleLabel(labels)


def bound(given: tuple[str, ...], learned: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels to use: those that the params give, in their order; else those learned from the data.

    Raises:
        DataError: If the data has a label that the params do not name.
    """
    strange = [label for label in learned if label not in given]
    if given and strange:
        raise DataError(f"problem.labels: {unknown('label', strange[0], given)}")
    return given or learned
