"""The merge methods there are. Torch-free: `adreg merge --list-methods` prints it as it is.

A new method is a row here, a pure function in a file of its own beside this one, and its name in
`adreg.merge.free` or, where it looks at layer inputs, in `adreg.merge.stages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

STRENGTH = "the strength of the adapter"
SHARE = "how much a concept counts where concepts disagree"


@dataclass(frozen=True)
class Method:
    """One line about a method; `weights` says what an adapter's weight means to it.

    `settings` are its own, by name, with what they are where nobody says otherwise; `ridge` that of
    its linear systems, relative to the mean eigenvalue, None where it has none. `refreshed` methods
    take rounds; `prior` says whether ordinary prompts can be kept, or have to be.
    """

    name: str
    line: str
    paper: str
    needs_statistics: bool
    weights: str
    ridge: float | None = None
    settings: Mapping[str, float] = field(default_factory=dict)
    refreshed: bool = False
    prior: Literal["possible", "needed"] | None = None


def spelled(settings: Mapping[str, float]) -> str:
    """As --set takes them: "drop=0.5 seed=0"."""
    return " ".join(f"{name}={value:g}" for name, value in settings.items())


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="loraclr",
            line="keeps each adapter's outputs on its own layer inputs, and other concepts' away",
            paper="LoRACLR, arXiv:2412.09622, solved in Gram space",
            needs_statistics=True,
            weights=SHARE,
            ridge=0.1,
            settings={"margin": 0.25},
            refreshed=True,
            prior="possible",
        ),
        Method(
            name="loraclr-paper",
            line="the same objective as published: 50 steps of AdamW on all the samples",
            paper="LoRACLR, arXiv:2412.09622",
            needs_statistics=True,
            weights="none: all count alike",
            settings={"margin": 0.5, "steps": 50},
        ),
        Method(
            name="concat",
            line="the exact weighted sum of the deltas, as if all adapters were on at once",
            paper="none: task arithmetic on deltas, arXiv:2212.04089",
            needs_statistics=False,
            weights=STRENGTH,
        ),
        Method(
            name="linear",
            line="the weighted mean of the deltas",
            paper="none: averaging, as in model soups, arXiv:2203.05482",
            needs_statistics=False,
            weights="its share of the mean",
        ),
        Method(
            name="svd",
            line="the weighted sum, cut to a rank: the nearest matrix of that rank",
            paper="none: Eckart and Young; exact, by a core of the factors",
            needs_statistics=False,
            weights=STRENGTH,
            settings={"rank": 16},
        ),
        Method(
            name="ties",
            line="of each delta the largest entries, and of these those of the elected sign",
            paper="TIES-Merging, arXiv:2306.01708",
            needs_statistics=False,
            weights=STRENGTH,
            settings={"density": 0.2},
        ),
        Method(
            name="dare",
            line="entries of each delta dropped at random, the rest rescaled, all added up",
            paper="DARE, arXiv:2311.03099",
            needs_statistics=False,
            weights=STRENGTH,
            settings={"drop": 0.5, "seed": 0},
        ),
        Method(
            name="orthogonal",
            line="0.6 of the sum, for adapters that were trained on columns of their own",
            paper="Orthogonal Adaptation, arXiv:2312.02432",
            needs_statistics=False,
            weights=STRENGTH,
            settings={"factor": 0.6},
        ),
        Method(
            name="regmean",
            line="as loraclr, each concept's Gram matrix shrunk off its diagonal",
            paper="RegMean, arXiv:2212.09849",
            needs_statistics=True,
            weights=SHARE,
            settings={"alpha": 0.9},
            refreshed=True,
            prior="possible",
        ),
        Method(
            name="gradient-fusion",
            line="as loraclr, by steps of L-BFGS from the base on and without a ridge",
            paper="Mix-of-Show, arXiv:2305.18292",
            needs_statistics=True,
            weights=SHARE,
            settings={"steps": 50},
            refreshed=True,
            prior="possible",
        ),
        Method(
            name="ssr",
            line="mixes the adapters' own factors so that each does on its inputs what it did",
            paper="SSR-Merge, arXiv:2606.10617",
            needs_statistics=True,
            weights=STRENGTH,
            ridge=0.01,
            refreshed=True,
            prior="possible",
        ),
        Method(
            name="custom-diffusion",
            line="K and V alone: the concepts' words come out exactly, ordinary ones least changed",
            paper="Custom Diffusion, arXiv:2212.04488",
            needs_statistics=True,
            weights=STRENGTH,
            prior="needed",
        ),
    )
}
