"""The merge methods there are. Torch-free: `adreg merge --list-methods` prints it as it is.

A new method is a row here, a pure function in a file of its own beside this one, and its name in
`adreg.merge.execute`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One line about a method; `weights` says what an adapter's weight means to it."""

    name: str
    line: str
    paper: str
    needs_statistics: bool
    weights: str


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="loraclr",
            line="keeps each adapter's outputs on its own layer inputs; closed form, no hinge yet",
            paper="LoRACLR, arXiv:2412.09622, the attracting part",
            needs_statistics=True,
            weights="how much a concept counts where concepts disagree",
        ),
        Method(
            name="concat",
            line="the exact weighted sum of the deltas, as if all adapters were on at once",
            paper="none: task arithmetic on deltas, arXiv:2212.04089",
            needs_statistics=False,
            weights="the strength of the adapter",
        ),
    )
}
