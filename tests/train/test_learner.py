from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adreg.diffusion.modules import attention_modules, base_layer, cross_kv, get_module
from adreg.diffusion.text import encode_ids
from adreg.diffusion.tokens import encode, token_ids
from adreg.errors import ConflictError
from adreg.formats.read import AdapterWeights
from adreg.train.learner import learning
from adreg.train.vocabulary import TriggerEmbedding
from tests import tiny
from tests.diffusion.weights import random_weights
from tests.train.runs import asking


@pytest.fixture
def pipe() -> Any:
    return tiny.pocket_pipeline()


def state_of(pipe: Any) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name in ("unet", "text_encoder", "vae")
        for key, value in getattr(pipe, name).state_dict().items()
    }


def test_embedding_equals_a_whole_table_in_value_and_gradient() -> None:
    table = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[0, 5, 6, 2], [6, 6, 5, 1]])
    whole = torch.cat([table[:5], rows]).requires_grad_()
    expected = F.embedding(ids, whole)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (expected * weights).sum().backward()

    embedding = TriggerEmbedding(table, 5, nn.Parameter(rows))
    found = embedding(ids)
    assert torch.equal(found, expected)
    (found * weights).sum().backward()
    assert whole.grad is not None
    torch.testing.assert_close(embedding.rows.grad, whole.grad[5:])
    assert not embedding.table.requires_grad


def test_only_factors_and_token_ask_for_gradients(pipe: Any) -> None:
    modules = attention_modules(tiny.modules_of(pipe))
    with learning(pipe, modules, 2, "<rex>", "dog") as learner:
        wanting = [
            p
            for part in (pipe.unet, pipe.text_encoder, pipe.vae)
            for p in part.parameters()
            if p.requires_grad
        ]
        assert {id(p) for p in wanting} == {id(p) for p in learner.parameters().values()}
        assert len(wanting) == 2 * len(modules) + 1
        assert learner.parameters()["token"].shape == (1, 32)


def test_it_starts_as_the_base(pipe: Any) -> None:
    """Fresh factors change nothing, and the token begins as its class word."""
    noisy = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    steps = torch.tensor([10, 700])
    plain = encode(pipe, ["a photo of dog dog"] * 2)
    with torch.no_grad():
        expected = pipe.unet(noisy, steps, plain).sample
    with learning(pipe, attention_modules(tiny.modules_of(pipe)), 2, "<rex>", "dog") as learner:
        text = learner.text(token_ids(pipe, ["a photo of <rex> dog"] * 2))
        torch.testing.assert_close(learner.predict(asking(noisy, steps), text), expected)


def test_token_starts_as_the_mean_of_the_words_or_at_random(pipe: Any) -> None:
    table = pipe.text_encoder.get_input_embeddings().weight
    words = pipe.tokenizer("red dog", add_special_tokens=False).input_ids
    modules = cross_kv(tiny.modules_of(pipe))
    with learning(pipe, modules, 2, "<rex>", "red dog") as learner:
        torch.testing.assert_close(learner.token()[0], table[words].mean(dim=0))
    tokens = []
    for seed in (1, 1, 2):
        with learning(pipe, modules, 2, "<rex>", None, seed=seed) as learner:
            tokens.append(learner.token().detach().clone())
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens[0], tokens[2])
    assert 0.3 < tokens[0].std() / table.std() < 3


def test_the_pipeline_comes_back_bit_for_bit(pipe: Any) -> None:
    before, size = state_of(pipe), len(pipe.tokenizer)
    modules = cross_kv(tiny.modules_of(pipe))
    earlier = random_weights(tiny.modules_of(pipe), modules, {"<old>": torch.ones(1, 32)})
    with learning(pipe, modules, 2, "<rex>", "dog", parent=earlier) as learner:
        assert len(pipe.tokenizer) == size + 2
        for parameter in learner.parameters().values():
            parameter.data.add_(1.0)
    after = state_of(pipe)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert len(pipe.tokenizer) == size
    assert pipe.text_encoder.config.vocab_size == size


def test_a_parents_deltas_are_in_the_weights(pipe: Any) -> None:
    shapes = tiny.modules_of(pipe)
    modules = cross_kv(shapes)
    earlier = random_weights(shapes, modules)
    before = {key: get_module(pipe, key).weight.clone() for key in modules}
    with learning(pipe, modules, 2, "<rex>", None, parent=earlier) as learner:
        for key in modules:
            weight = base_layer(get_module(pipe, key)).weight
            delta = earlier.factors[key].up @ earlier.factors[key].down
            torch.testing.assert_close(weight, before[key] + delta)
            torch.testing.assert_close(learner.past[key], delta)


def test_a_taken_trigger_is_refused_and_nothing_is_left(pipe: Any) -> None:
    before = state_of(pipe)
    earlier = AdapterWeights({}, {"<rex>": torch.ones(1, 32)}, {})
    modules = cross_kv(tiny.modules_of(pipe))
    with (
        pytest.raises(ConflictError, match="<rex>"),
        learning(pipe, modules, 2, "<rex>", "dog", parent=earlier),
    ):
        pass
    assert state_of(pipe).keys() == before.keys()


def test_plain_text_is_the_prompt_without_the_trigger(pipe: Any) -> None:
    expected = encode(pipe, ["a photo of a dog", "dog"])
    with learning(pipe, cross_kv(tiny.modules_of(pipe)), 2, "<rex>", "dog") as learner:
        ids = token_ids(pipe, ["a photo of a <rex> dog", "<rex> dog"])
        learner.token().data.fill_(9.0)
        found = learner.plain_text(ids).features
        assert not found.requires_grad
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(learner.plain_text(ids).features, expected)


def test_plain_text_is_without_any_of_several_triggers(pipe: Any) -> None:
    expected = encode(pipe, ["a photo of a dog", "a cat"])
    modules = cross_kv(tiny.modules_of(pipe))
    with learning(pipe, modules, 2, "<rex>", "dog", also={"<tom>": "cat"}) as learner:
        ids = learner.ids(["a photo of a <rex> dog", "a <tom> <rex> cat"])
        learner.token().data.fill_(9.0)
        torch.testing.assert_close(learner.plain_text(ids).features, expected)


@pytest.mark.parametrize("build", [tiny.pocket_pipeline, tiny.sdxl_pipeline])
def test_prompts_are_read_once_while_the_token_is_frozen_and_are_the_same(build: Any) -> None:
    pipe = build()
    reads: list[int] = []
    with learning(pipe, attention_modules(tiny.modules_of(pipe)), 2, "<rex>", "dog") as learner:
        pipe.text_encoder.register_forward_hook(lambda *told: reads.append(1))
        ids = token_ids(pipe, ["a <rex> dog", "photo of <rex>", "a <rex> dog"])
        learner.text(ids)
        learner.text(ids)
        assert len(reads) == 2, "a token that learns is read anew"
        learner.token().requires_grad_(False)
        for moved in (0.0, 0.3):
            learner.token().data += moved
            whole = encode_ids(pipe, ids)
            reads.clear()
            for rows in ([0, 1, 2], [1], [2, 0]):
                found = learner.text(ids[rows])
                assert torch.equal(found.features, whole.features[rows])
                if whole.pooled is not None:
                    assert found.pooled is not None
                    # One row is multiplied in another order than several.
                    torch.testing.assert_close(found.pooled, whole.pooled[rows])
            assert len(reads) == 2, "two prompts, once each"
        learner.token().requires_grad_(True)
        assert learner.text(ids).features.requires_grad


def test_sdxls_token_has_a_row_in_each_text_encoder() -> None:
    pipe = tiny.sdxl_pipeline()
    tables = [
        part.get_input_embeddings().weight for part in (pipe.text_encoder, pipe.text_encoder_2)
    ]
    word = pipe.tokenizer("dog", add_special_tokens=False).input_ids[0]
    modules = attention_modules(tiny.modules_of(pipe))
    with learning(pipe, modules, 2, "<rex>", "dog") as learner:
        assert learner.token_widths() == (32, 48)
        assert torch.equal(learner.token()[0], torch.cat([table[word] for table in tables]))
        text = learner.text(learner.ids(["a photo of <rex>"]))
        assert text.pooled is not None
        (gradient,) = torch.autograd.grad(text.features.square().sum(), learner.token())
        assert gradient[0, :32].abs().max() > 0
        assert gradient[0, 32:].abs().max() > 0
        # Without it, each tokenizer pads in its own way.
        plain = learner.plain_text(learner.ids(["a photo of <rex>"]))
        theirs, _, pooled, _ = pipe.encode_prompt("a photo of", device="cpu")
        assert torch.equal(plain.features, theirs)
        assert plain.pooled is not None
        assert torch.equal(plain.pooled, pooled)
    assert pipe.text_encoder.get_input_embeddings().weight is tables[0]
    assert pipe.text_encoder_2.get_input_embeddings().weight is tables[1]
