"""LoRACLR's options by the program: rounds, ordinary prompts, and what the hinge did."""

from __future__ import annotations

import pytest

from adreg.bases.find import find_base
from adreg.diffusion.modules import attention_modules
from tests.cli import Cli, CliHere
from tests.merge.cases import adapter
from tests.tiny import pocket_folder

pytestmark = pytest.mark.timeout(900)
PAIR = ("merge", "rex", "tom", "--refine", "0")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A registry with two adapters on a tiny base."""
    folder = tmp_path_factory.mktemp("loraclr")
    base = find_base(str(pocket_folder(folder / "small")))
    here = CliHere(folder / "home", folder, {"ADREG_BASE": str(base.path)})
    for seed, name in enumerate(("rex", "tom")):
        modules = attention_modules(base.modules)
        here.ok("add", adapter(folder, base, name, modules, seed=seed).path)
    return here


def test_what_the_hinge_did_is_printed(cli: Cli) -> None:
    wide = cli.ok(*PAIR, "--set", "margin=5", "--verbose", "--name", "wide").out
    layers = wide.count(".attn")
    assert layers > 10
    assert f"hinge: acts in {layers} of {layers} layers" in wide
    none = cli.ok(*PAIR, "--set", "margin=1e-6", "--verbose", "--name", "none").out
    assert "hinge: acts in 0 of" in none
    assert ".attn" not in none
    off = cli.ok(*PAIR, "--set", "margin=0", "--verbose", "--name", "off").out
    assert "hinge: none" in off


def test_rounds_and_ordinary_prompts_are_planned(cli: Cli) -> None:
    once = cli.json(*PAIR, "--dry-run")
    more = cli.json(*PAIR, "--rounds", "3", "--keep-prior", "0.3", "--dry-run")
    flops = [sum(step["flops"] for step in plan["operations"]) for plan in (once, more)]
    assert flops[1] > 3 * flops[0] > 0
    text = cli.ok(*PAIR, "--rounds", "3", "--dry-run").out
    assert "3 rounds, the others with the merged model" in text


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--method", "concat", "--rounds", "2"), "concat looks at no inputs"),
        (("--method", "concat", "--keep-prior", "1"), "concat looks at no inputs"),
        (("--method", "loraclr-paper", "--rounds", "2"), "loraclr-paper has no rounds"),
        (("--method", "loraclr-paper", "--keep-prior", "1"), "loraclr-paper has no keep_prior"),
        (("--keep-prior", "-1"), "keep_prior.weight must be above 0"),
        (("--method", "custom-diffusion"), "keys and values of cross-attention alone"),
        (("--set", "margin=-1"), "margin must be a number from 0 to 10"),
    ],
)
def test_what_a_method_cannot_do_is_refused(wrong: tuple[str, ...], said: str, cli: Cli) -> None:
    assert said in cli.refused(2, "merge", "rex", "tom", *wrong, "--dry-run")


def test_the_published_method_has_no_weights(cli: Cli) -> None:
    said = cli.refused(2, "merge", "rex:0.5", "tom", "--method", "loraclr-paper", "--dry-run")
    assert "has no weights" in said
