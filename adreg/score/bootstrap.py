"""Confidence intervals of scores: the percentile bootstrap (Efron 1979), seeded.

A draw picks as many units as there are, with replacement. It is kept as a weight for each row of
a measurement, so that a statistic is written once, for weighted rows, and serves value and draws.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS, LEVEL, SEED = 2000, 0.95, 0

Array = NDArray[Any]
# Weights (draws x rows), each row of them adding up to 1, to a value for each draw.
Statistic = Callable[[Array], Array]


def interval(units: Sequence[Hashable], statistic: Statistic) -> list[float] | None:
    """The middle 95 % of `statistic` over 2,000 draws: [low, high].

    `units` names the unit of every row: rows of one unit (pictures of one prompt) are drawn
    together, since they are no independent evidence. Draws for which the statistic is not finite
    are left out. None where there are fewer than two units.
    """
    if len(set(units)) < 2:
        return None
    found = statistic(draws(units))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(found[np.isfinite(found)], [tail, 1 - tail])
    return [float(low), float(high)]


def draws(units: Sequence[Hashable]) -> Array:
    """Weights (draws x rows): how often a row's unit was drawn, over all that was drawn."""
    known = list(dict.fromkeys(units))
    row_units = [known.index(unit) for unit in units]
    chances = np.full(len(known), 1 / len(known))
    counts = np.random.default_rng(SEED).multinomial(len(known), chances, size=DRAWS)
    weights = counts[:, row_units].astype(np.float64)
    # A draw of the same count of units may hold more rows or fewer where units differ in size.
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def even(rows: int) -> Array:
    """The weights (1 x rows) of the measurement itself."""
    return np.full((1, rows), 1 / rows)


def mean(values: Sequence[float]) -> Statistic:
    """The mean of a value a row."""
    column = np.asarray(values, dtype=np.float64)
    return lambda weights: np.asarray(weights @ column)
