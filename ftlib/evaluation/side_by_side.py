"""Models that choose among different candidates, laid side by side over one layout, so that they can be compared.

Members and what is fused of them choose among the members' candidates. Members that answer together
(`Fusion.joint`) say what no single one may have said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ftlib.ensembling import Scores
    from ftlib.targets.layout import Layout


def side_by_side(
    own: Scores, together: Mapping[str, Scores], models: Mapping[str, np.ndarray]
) -> tuple[Layout | None, dict[str, np.ndarray]]:
    """Return one layout for all models of some rows, and their scores over it: 0 for what a model has not said.

    Args:
        own: The members' scores, whose units all models share that are not in `together`.
        together: Model -> the scores that it was made of, over units of its own.
        models: Model -> its scores, shape (num_units, num_outputs).
    """
    import numpy as np

    if own.layout is None or own.layout.units is None or not together:  # units are not told apart by what they say
        return own.layout, dict(models)
    layout, places = _merged([own.layout, *(one.layout for one in together.values())])  # type: ignore[list-item]
    number = {name: i for i, name in enumerate(together, 1)}
    spread = {}
    for name, scores in models.items():
        spread[name] = np.zeros((layout.num_units, *scores.shape[1:]))
        spread[name][places[number.get(name, 0)]] = scores
    return layout, spread


def _merged(layouts: Sequence[Layout]) -> tuple[Layout, list[np.ndarray]]:
    """Return a layout with the units of all, and where the units of each are in it.

    A row has the units of the first layout, in their order, then those that only others have: so the first of equals
    stays the first, whatever others add.
    """
    import numpy as np
    import pyarrow as pa

    from ftlib.targets.layout import Layout

    said = [_units(layout) for layout in layouts]
    counts: list[int] = []
    units: list[str] = []
    places: list[list[int]] = [[] for _ in layouts]
    for row in range(layouts[0].num_rows):
        known: dict[str, int] = {}
        for layout, keys, found in zip(layouts, said, places, strict=True):
            own = keys[layout.splits[row] : layout.splits[row + 1]]
            found += [known.setdefault(key, len(units) + len(known)) for key in own]
        counts.append(len(known))
        units += known
    schema = layouts[0].units.schema  # type: ignore[union-attr]
    table = pa.Table.from_pylist([json.loads(unit) for unit in units], schema)
    return Layout.of(np.array(counts, np.int64), table), [np.array(found, np.int64) for found in places]


def _units(layout: Layout) -> list[str]:
    """Return what each unit is, as one string: equal for equal units."""
    return [json.dumps(unit) for unit in layout.units.to_pylist()]  # type: ignore[union-attr]
