"""A continual line's scores as records: forgetting/1, a-mmd/1, f-mmd/1."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from torch import Tensor

from adreg.domain import Json
from adreg.score.bootstrap import Array, Statistic, even, interval
from adreg.score.forgetting import (
    A_MMD,
    F_MMD,
    NAME,
    a_mmd,
    alignment_matrix,
    f_mmd,
    forgetting,
)


def forgetting_score(
    each: Array, concepts: Sequence[str], units: Sequence[Hashable], digest: str
) -> Json:
    """From the identity/1 of each picture (concepts x tasks x pictures; nan: not learnt yet).

    `details` hold the `concepts` (triggers), the alignment `matrix`, a row a concept and a column
    a task, and the `intervals` of its cells; null where the concept was not learnt yet.
    """
    matrix = alignment_matrix(each)
    cells = matrix(even(each.shape[2]))[0].tolist()
    details: Json = {
        "concepts": list(concepts),
        "matrix": [[None if math.isnan(cell) else cell for cell in row] for row in cells],
        "intervals": [
            [
                None if math.isnan(cell) else interval(units, _one(matrix, concept, task))
                for task, cell in enumerate(row)
            ]
            for concept, row in enumerate(cells)
        ],
    }
    return _score(NAME, lambda weights: forgetting(matrix(weights)), units, digest, details)


def mmd_scores(
    photos: Sequence[Tensor],
    first: Sequence[Tensor],
    last: Sequence[Tensor],
    units: Sequence[Hashable],
    digest: str,
) -> list[Json]:
    """From unit features, a set a concept in the order they were learnt: photos, pictures after
    the last task (`last`), and of those learnt before it, pictures when they were new (`first`).

    f-mmd/1 is left out where there are none.
    """
    found = [_score(A_MMD, a_mmd(photos, last), units, digest, {})]
    if first:
        found.append(_score(F_MMD, f_mmd(first, last[: len(first)]), units, digest, {}))
    return found


def _one(matrix: Statistic, concept: int, task: int) -> Statistic:
    return lambda weights: matrix(weights)[:, concept, task]


def _score(
    name: str, statistic: Statistic, units: Sequence[Hashable], digest: str, details: Json
) -> Json:
    drawn = interval(units, statistic)
    return {
        "name": name,
        "value": float(statistic(even(len(units)))[0]),
        "scorer": digest,
        "details": details if drawn is None else {"interval": drawn, **details},
    }
