"""What every merge method promises, on a tiny pipeline's keys and values.

A method of the table that states no law here fails a test. The ridge is next to nothing: with one a
method pulls towards the base. LoRACLR's hinge is off where a law speaks of copies, which it would
push apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from adreg.bases.load import load_pipeline
from adreg.diffusion.tokens import add_tokens, encode, named_tokens, token_names
from adreg.domain import Base, silent
from adreg.errors import UsageError
from adreg.formats.factors import Delta, Dense, Factors
from adreg.merge.free import FREE, Asked, Combined
from adreg.merge.methods import custom_diffusion, gradient_fusion, loraclr, loraclr_paper, ssr
from adreg.merge.methods.table import METHODS, STRENGTH
from adreg.merge.operands import rename_collisions
from adreg.merge.plan import plan_merge
from adreg.merge.recipe import PROMPTS
from adreg.merge.stages import solve_stages
from tests.merge.cases import Case, adapter, operand, recipe_for

KEYS_VALUES = [
    f"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_{which}" for which in "kv"
]


@dataclass(frozen=True)
class Law:
    """What a method claims.

    `alone`: one adapter comes back that many times; None where it does not. `on`: as numbers, on
    what it does to its inputs, or on what it does to the concept's words, up to `share`. `copies`:
    what n copies of one adapter make, with equal weights: the one, or n times it; None where the
    method is no such thing. `ordered`: whether the order of adapters matters.
    """

    alone: float | None = None
    on: Literal["numbers", "inputs", "words"] = "numbers"
    share: float = 1e-5
    copies: Literal["one", "sum"] | None = None
    ordered: bool = False


LAWS = {
    "loraclr": Law(alone=1, on="inputs", share=1e-3, copies="one"),
    "loraclr-paper": Law(),  # as published it stops long before
    "concat": Law(alone=1, copies="sum"),
    "linear": Law(alone=1, copies="one"),
    "svd": Law(alone=1, copies="sum"),
    "ties": Law(copies="one"),  # of one it keeps the largest entries
    "dare": Law(ordered=True),  # it drops entries, adapter by adapter from one generator
    "orthogonal": Law(alone=0.6, copies="sum"),
    "regmean": Law(alone=1, on="inputs", share=1e-3, copies="one"),
    "gradient-fusion": Law(alone=1, on="inputs", share=0.05, copies="one"),
    "ssr": Law(alone=1, on="inputs", share=1e-3, copies="one"),
    "custom-diffusion": Law(alone=1, on="words", share=1e-3, copies="one"),
}
FROM_INPUTS = [name for name, method in METHODS.items() if method.needs_statistics]
FREE_OF_DATA = [name for name in METHODS if name not in FROM_INPUTS]


@dataclass(frozen=True)
class World:
    """A pipeline that knows all tokens, and adapters by name."""

    base: Base
    pipe: Any
    cases: Mapping[str, Case]
    scratch: Path
    runs: count[int]

    def merged(
        self,
        method: str,
        names: Sequence[str],
        weights: Sequence[float] | None = None,
        whole: bool = False,
        **settings: float,
    ) -> dict[str, Tensor]:
        """The merged deltas by module; `whole` makes the last adapter's deltas dense."""
        shares = weights or [1.0] * len(names)
        cases = [
            replace(self.cases[name], ref=replace(self.cases[name].ref, weight=weight))
            for name, weight in zip(names, shares, strict=True)
        ]
        recipe = recipe_for(self.base, cases, method, ridge=1e-7, **settings)
        plan = plan_merge(self.base, [case.named for case in cases], recipe)
        adapted: dict[str, Mapping[str, Delta]] = {c.ref.digest: c.weights.deltas for c in cases}
        if whole:
            last = cases[-1].ref.digest
            adapted[last] = {m: Dense(delta.delta()) for m, delta in adapted[last].items()}
        if method in FREE:
            return dict(Combined(plan, adapted))
        folder = self.scratch / str(next(self.runs))
        return dict(solve_stages(self.pipe, plan, adapted, folder, silent))

    def own(self, name: str) -> dict[str, Tensor]:
        return {m: delta.delta() for m, delta in self.cases[name].weights.deltas.items()}

    def inputs(self, name: str, words: bool = False) -> Tensor:
        """What its keys and values read (tokens x in): all of the prompts, or the words alone."""
        (trigger,) = self.cases[name].weights.tokens
        phrase = f"{trigger} dog"
        prompts = [template.replace("{c}", phrase) for template in PROMPTS]
        features = encode(self.pipe, prompts)
        if words:
            return features[named_tokens(self.pipe, prompts, phrase)]
        return features.flatten(0, 1)

    def assert_same(
        self, method: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
    ) -> None:
        """As numbers, or where the method's law is of inputs on those of two adapters."""
        law = LAWS[method]
        x = torch.cat([self.inputs(name, law.on == "words") for name in ("rex", "tom")])
        for module in KEYS_VALUES:
            if law.on == "numbers":
                assert_close(found[module], wanted[module], 1e-3)
            else:
                assert_close(x @ found[module].T, x @ wanted[module].T, 2 * law.share)


@pytest.fixture(scope="module")
def world(base: Base, tmp_path_factory: pytest.TempPathFactory) -> World:
    """rex and two copies of it under other names, tom, one of keys alone and one of values alone,
    and two that change nothing."""
    folder = tmp_path_factory.mktemp("laws")
    key, value = KEYS_VALUES
    cases = [
        *(adapter(folder, base, name, KEYS_VALUES, seed=1) for name in ("rex", "rox", "rax")),
        adapter(folder, base, "tom", KEYS_VALUES, seed=2, rank=3),
        adapter(folder, base, "kay", [key], seed=3),
        adapter(folder, base, "vee", [value], seed=4),
        adapter(folder, base, "nil", KEYS_VALUES, seed=5, size=0.0),
        adapter(folder, base, "nul", KEYS_VALUES, seed=6, size=0.0),
    ]
    pipe = load_pipeline(base.path)
    add_tokens(pipe, {t: rows for case in cases for t, rows in case.weights.tokens.items()})
    return World(base, pipe, {case.ref.name: case for case in cases}, folder / "runs", count())


def unhinged(method: str) -> dict[str, float]:
    return {"margin": 0.0} if "margin" in METHODS[method].settings else {}


def assert_close(found: Tensor, wanted: Tensor, share: float) -> None:
    assert float((found - wanted).norm()) <= share * float(wanted.norm()) + 1e-6


def test_every_method_states_its_laws() -> None:
    assert LAWS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", [m for m in METHODS if LAWS[m].alone is not None])
def test_one_adapter_alone_comes_back(world: World, method: str) -> None:
    law, found, own = LAWS[method], world.merged(method, ["rex"]), world.own("rex")
    for module in KEYS_VALUES:
        wanted, got = law.alone * own[module], found[module]
        if law.on != "numbers":
            x = world.inputs("rex", law.on == "words")
            wanted, got = x @ wanted.T, x @ got.T
        assert_close(got, wanted, law.share)


def test_ties_alone_keeps_its_largest_entries(world: World) -> None:
    found, own = world.merged("ties", ["rex"]), world.own("rex")
    for module, delta in own.items():
        kept = found[module] != 0
        assert int(kept.sum()) == round(0.2 * delta.numel())
        assert torch.equal(found[module][kept], delta[kept])
        assert delta[kept].abs().min() >= delta[~kept].abs().max()


def test_dare_alone_has_entries_dropped_and_the_rest_as_much_larger(world: World) -> None:
    found, own = world.merged("dare", ["rex"], drop=0.25), world.own("rex")
    for module, delta in own.items():
        kept = found[module] != 0
        assert 0.6 < float(kept.float().mean()) < 0.9
        assert torch.allclose(found[module][kept], delta[kept] / 0.75, atol=1e-6)


def test_the_published_optimiser_comes_nearer_and_no_further_than_its_steps(world: World) -> None:
    found, own, x = world.merged("loraclr-paper", ["rex"]), world.own("rex"), world.inputs("rex")
    for module, delta in own.items():
        assert (x @ (found[module] - delta).T).norm() < (x @ delta.T).norm()
        assert float(found[module].abs().max()) < 50 * 1e-4 * 1.2


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("method", [m for m in METHODS if LAWS[m].copies])
def test_copies_are_the_one_or_add_up(world: World, method: str, number: int) -> None:
    names = ["rex", "rox", "rax"][:number]
    one = world.merged(method, names[:1], **unhinged(method))
    several = world.merged(method, names, **unhinged(method))
    times = number if LAWS[method].copies == "sum" else 1
    for module in KEYS_VALUES:
        if LAWS[method].on == "numbers":
            assert_close(several[module], times * one[module], 1e-5)
        else:
            x = world.inputs("rex", LAWS[method].on == "words")
            assert_close(x @ several[module].T, times * x @ one[module].T, 2 * LAWS[method].share)


@pytest.mark.parametrize("factor", [0.5, 3.0])
@pytest.mark.parametrize("method", METHODS)
def test_weights_are_what_the_table_says(world: World, method: str, factor: float) -> None:
    """A strength scales what comes out; of shares a common factor changes nothing."""
    said, names = METHODS[method].weights, ["rex", "tom"]
    if said.startswith("none"):
        with pytest.raises(UsageError, match="no weights"):
            world.merged(method, names, [factor, 1.0])
        return
    before = world.merged(method, names, [1.0, 2.0])
    after = world.merged(method, names, [factor, 2 * factor])
    times = factor if said == STRENGTH else 1
    world.assert_same(method, after, {m: times * delta for m, delta in before.items()})


@pytest.mark.parametrize("method", [m for m in METHODS if LAWS[m].copies])
def test_a_weight_is_its_own_adapters(world: World, method: str) -> None:
    """The heavier one is heard more."""
    x = world.inputs("tom", LAWS[method].on == "words")
    light = world.merged(method, ["rex", "tom"], [1.0, 0.2])
    heavy = world.merged(method, ["rex", "tom"], [1.0, 4.0])
    for module in KEYS_VALUES:
        wanted = x @ world.own("tom")[module].T
        told = [float(((x @ d[module].T) * wanted).sum()) for d in (light, heavy)]
        assert told[0] < told[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_adapters(world: World, method: str) -> None:
    # Sums in another order are rounded otherwise, which L-BFGS makes more of with every step.
    few = {"steps": 5} if method == "gradient-fusion" else {}
    one = world.merged(method, ["rex", "tom", "kay"], **few)
    other = world.merged(method, ["kay", "tom", "rex"], **few)
    if LAWS[method].ordered:
        assert not torch.allclose(one[KEYS_VALUES[0]], other[KEYS_VALUES[0]], atol=1e-3)
        one = world.merged(method, ["rex", "tom", "kay"], drop=0.0)
        other = world.merged(method, ["kay", "tom", "rex"], drop=0.0)
    world.assert_same(method, one, other)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_that_change_nothing_make_nothing(world: World, method: str) -> None:
    found = world.merged(method, ["nil", "nul"], **unhinged(method))
    for module in KEYS_VALUES:
        assert float(found[module].abs().max()) < 1e-6


@pytest.mark.parametrize("method", FREE_OF_DATA)
def test_one_that_changes_nothing_changes_nothing(world: World, method: str) -> None:
    found, alone = world.merged(method, ["rex", "nil"]), world.merged(method, ["rex"])
    times = 0.5 if METHODS[method].weights != STRENGTH else 1  # it counts in a mean
    for module in KEYS_VALUES:
        assert_close(found[module], times * alone[module], 1e-5)


@pytest.mark.parametrize("method", FREE_OF_DATA)
def test_adapters_that_share_no_layer_do_not_meet(world: World, method: str) -> None:
    found = world.merged(method, ["kay", "vee"])
    times = 0.5 if METHODS[method].weights != STRENGTH else 1
    for name in ("kay", "vee"):
        for module, delta in world.merged(method, [name]).items():
            # dare draws for each layer apart: whoever comes first there has the first draws.
            assert_close(found[module], times * delta, 1e-5)


@pytest.mark.parametrize("method", FROM_INPUTS)
def test_one_that_leaves_a_layer_alone_is_spared_there(world: World, method: str) -> None:
    """Its inputs count: on them the layer does less than it would, and on the other's own more
    than nothing."""
    found = world.merged(method, ["kay", "vee"])
    assert found.keys() == set(KEYS_VALUES)
    for name, other in (("kay", "vee"), ("vee", "kay")):
        for module, delta in world.own(name).items():
            words = LAWS[method].on == "words"
            own, others = world.inputs(name, words), world.inputs(other, words)
            assert (others @ found[module].T).norm() < (others @ delta.T).norm()
            assert (own @ (found[module] - delta).T).norm() < (own @ delta.T).norm()


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_delta_is_as_its_factors(world: World, method: str) -> None:
    if method == "ssr":
        with pytest.raises(UsageError, match="whole delta"):
            world.merged(method, ["rex", "tom"], whole=True)
        return
    found = world.merged(method, ["rex", "tom"], whole=True)
    wanted = world.merged(method, ["rex", "tom"])
    world.assert_same(method, found, wanted)


OTHERWISE = {
    "margin": 10.0,
    "steps": 2,
    "rank": 1,
    "density": 0.5,
    "drop": 0.25,
    "seed": 1,
    "factor": 0.3,
    "alpha": 0.5,
}


@pytest.mark.parametrize(
    ("method", "setting"), [(m, name) for m in METHODS for name in METHODS[m].settings]
)
def test_every_setting_is_heard(world: World, method: str, setting: str) -> None:
    usual = world.merged(method, ["rex", "tom"])
    other = world.merged(method, ["rex", "tom"], **{setting: OTHERWISE[setting]})
    assert not any(torch.equal(usual[module], other[module]) for module in KEYS_VALUES)


GRAM, D, RIDGE = torch.tensor([[4.0]]).double(), 3.0, 0.25
OF_ONE_NUMBER = {
    "loraclr": (loraclr.merged_delta(GRAM, D * GRAM, RIDGE), D / (1 + RIDGE)),
    "loraclr-paper": (
        loraclr_paper.merged_delta(torch.zeros(1, 1), [torch.ones(1, 1)], [torch.full((1, 1), D)]),
        50 * 1e-4,
    ),
    "regmean": (loraclr.merged_delta(GRAM, D * GRAM, 0.0), D),
    "gradient-fusion": (gradient_fusion.merged_delta(GRAM, D * GRAM, 50), D),
    "ssr": (
        ssr.merged_delta([Factors(torch.full((1, 1), D), torch.ones(1, 1))], [GRAM], RIDGE),
        D / (1 + RIDGE),
    ),
    "custom-diffusion": (
        custom_diffusion.merged_delta(torch.ones(1, 1), torch.full((1, 1), D), GRAM),
        D,
    ),
    "concat": (None, 2 * D),
    "linear": (None, D),
    "svd": (None, 2 * D),
    "ties": (None, 2 * D),
    "dare": (None, 2 * D / (1 - 0.5)),
    "orthogonal": (None, 0.6 * 2 * D),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_of_one_number(method: str) -> None:
    """1 x 1, of weight 2 where it takes no inputs."""
    found, wanted = OF_ONE_NUMBER[method]
    if found is None:
        part = Factors(torch.full((1, 1), D), torch.ones(1, 1))
        asked = Asked("unet.x", METHODS[method].settings, 2.0)
        found = FREE[method]([(part, 2.0)], asked)
        if method == "dare" and not found.any():
            return  # the one entry was dropped
    assert found.shape == (1, 1)
    assert float(found) == pytest.approx(wanted, rel=3e-2)


TRIGGERS = st.lists(
    st.tuples(
        st.sampled_from(["<a>", "<A>", "<a>_1", "<a>_2", "<a-2>", "<a-2>_1", "a", "a_1", "a-2"]),
        st.integers(1, 3),
    ),
    max_size=3,
    unique_by=lambda pair: pair[0],
)


@given(st.lists(TRIGGERS, max_size=4), st.lists(st.sampled_from(["<a>", "<a>_1", "<A-2>"])))
def test_merged_tokens_never_collide(wishes: list[list[tuple[str, int]]], taken: list[str]) -> None:
    """Neither with each other nor with the base's, further vectors' tokens among them."""
    operands = [
        operand(f"o{number}", vectors=dict(triggers)) for number, triggers in enumerate(wishes)
    ]
    renamed, renames = rename_collisions(operands, taken)
    names = [
        name.casefold()
        for one in renamed
        for trigger, vectors in one.vectors.items()
        for name in token_names(one.renamed.get(trigger, trigger), vectors)
    ]
    assert len(names) == len(set(names))
    assert not set(names) & {token.casefold() for token in taken}
    told = {(move["adapter"], move["old"]): move["new"] for move in renames}
    kept = {(one.name, old): new for one in renamed for old, new in one.renamed.items()}
    assert told == kept


PROGRAM = """
import sys
from pathlib import Path
from adreg.bases.find import find_base
from adreg.merge.execute import merge
from adreg.store.digest import tree_digest
from tests.merge.cases import adapter, recipe_for
from tests.merge.test_laws import KEYS_VALUES
base, folder = find_base(sys.argv[1]), Path(sys.argv[2])
text = sorted(module for module in base.modules if ".self_attn." in module)[:2]
cases = [
    adapter(folder, base, name, {*KEYS_VALUES, *text}, seed=seed, vectors=2, trigger="<rex>")
    for seed, name in enumerate(("rex", "tom"))
]
for method in ("ties", "loraclr"):
    report = merge(base, [c.named for c in cases], recipe_for(base, cases, method), folder / method)
    assert report["renames"] == [{"adapter": "tom", "old": "<rex>", "new": "<rex-2>"}]
    print(method, tree_digest(folder / method))
"""


def test_the_order_of_hashes_changes_no_digest(base: Base, tmp_path: Path) -> None:
    """Two processes, two values of PYTHONHASHSEED; tokens and renames included."""
    told = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(base.path), str(folder)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert told[0] == told[1]
    assert "loraclr" in told[0]
