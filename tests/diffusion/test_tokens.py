from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from adreg.diffusion.tokens import (
    add_tokens,
    drop_token,
    encode,
    expand_prompt,
    read_prompts,
    token_ids,
    trigger_ids,
)
from adreg.errors import ArtifactError, ConflictError
from tests import tiny


@pytest.fixture
def pipe() -> Any:
    return tiny.pocket_pipeline()


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))


def test_old_prompts_read_as_before(pipe: Any) -> None:
    before = encode(pipe, ["a photo of a dog", "a red cat"])
    add_tokens(pipe, {"<rex>": rows(1)})
    assert torch.equal(encode(pipe, ["a photo of a dog", "a red cat"]), before)


def test_rows_lie_where_the_ids_point(pipe: Any) -> None:
    add_tokens(pipe, {"<tom>": rows(1, 1), "<rex>": rows(3, 2)})
    table = pipe.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[trigger_ids(pipe, "<tom>")], rows(1, 1))
    assert torch.equal(table[trigger_ids(pipe, "<rex>")], rows(3, 2))
    ids = token_ids(pipe, ["a photo of <rex> dog"])[0].tolist()
    assert [i for i in ids if i in trigger_ids(pipe, "<rex>")] == trigger_ids(pipe, "<rex>")
    assert expand_prompt(pipe, "<rex> dog") == "<rex> <rex>_1 <rex>_2 dog"


def test_same_features_as_diffusers_own_textual_inversion(pipe: Any) -> None:
    other = tiny.pocket_pipeline()
    other.load_textual_inversion({"<rex>": rows(2)}, token="<rex>")
    add_tokens(pipe, {"<rex>": rows(2)})
    prompt = "a photo of <rex> dog in the snow"
    theirs, _ = other.encode_prompt(prompt, "cpu", 1, False)
    assert torch.equal(encode(pipe, [prompt]), theirs)


def test_saved_pipeline_keeps_the_tokens(pipe: Any, tmp_path: Path) -> None:
    add_tokens(pipe, {"<rex>": rows(2)})
    expected = encode(pipe, ["a photo of <rex> dog"])
    pipe.save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert torch.equal(encode(again, ["a photo of <rex> dog"]), expected)


def test_known_tokens_and_other_widths_are_refused(pipe: Any) -> None:
    add_tokens(pipe, {"<rex>": rows(1)})
    with pytest.raises(ConflictError, match="<rex>"):
        add_tokens(pipe, {"<rex>": rows(1), "<ann>": rows(1)})
    with pytest.raises(ArtifactError, match=r"<tom>.*\(1, 5\).*width 32"):
        add_tokens(pipe, {"<tom>": torch.zeros(1, 5)})
    with pytest.raises(ArtifactError, match="<tom>"):
        trigger_ids(pipe, "<tom>")
    assert pipe.text_encoder.get_input_embeddings().num_embeddings == len(pipe.tokenizer)


def test_dropping_a_trigger_gives_the_prompt_without_it(pipe: Any) -> None:
    add_tokens(pipe, {"<rex>": rows(2)})
    pad = pipe.tokenizer.pad_token_id
    with_token = token_ids(pipe, ["a photo of <rex> dog", "<rex>", "a red cat", "a <rex> <rex>"])
    without = token_ids(pipe, ["a photo of dog", "", "a red cat", "a"])
    assert torch.equal(drop_token(with_token, trigger_ids(pipe, "<rex>"), pad), without)


def test_drop_by_one_index_moves_the_row_left() -> None:
    ids = torch.tensor([[5, 7, 6, 7, 9]])
    assert drop_token(ids, 7, 0).tolist() == [[5, 6, 9, 0, 0]]


def test_a_trigger_of_two_text_encoders_is_read_as_diffusers_reads_it() -> None:
    pipe, other = tiny.sdxl_pipeline(), tiny.sdxl_pipeline()
    both = torch.randn(2, 80, generator=torch.Generator().manual_seed(0))
    add_tokens(pipe, {"<rex>": both})
    parts = ((other.tokenizer, other.text_encoder), (other.tokenizer_2, other.text_encoder_2))
    for (tokenizer, encoder), rows in zip(parts, both.split([32, 48], dim=1), strict=True):
        other.load_textual_inversion(
            {"<rex>": rows}, token="<rex>", tokenizer=tokenizer, text_encoder=encoder
        )
    prompt = "a photo of <rex> dog in the snow"
    theirs, _, pooled, _ = other.encode_prompt(prompt, device="cpu")
    found = read_prompts(pipe, [prompt])
    assert torch.equal(found.features, theirs)
    assert found.pooled is not None
    assert torch.equal(found.pooled, pooled)
    with pytest.raises(ArtifactError, match=r"<tom>.*\(1, 32\).*width 32 \+ 48"):
        add_tokens(pipe, {"<tom>": torch.zeros(1, 32)})


def test_tokenizers_of_two_vocabularies_are_refused() -> None:
    pipe = tiny.sdxl_pipeline()
    pipe.tokenizer_2.add_tokens(["<more>"])
    with pytest.raises(ArtifactError, match="tokenizers of the base know"):
        add_tokens(pipe, {"<rex>": torch.zeros(1, 80)})


def test_what_sdxls_published_config_pools_is_the_triggers_own_position() -> None:
    """transformers takes the highest id for the end of the text where the config says 2."""
    pipe = tiny.sdxl_pipeline()
    add_tokens(pipe, {"<rex>": torch.ones(1, 80)})
    encoder = pipe.text_encoder_2
    encoder.text_model.eos_token_id = 2
    ids = token_ids(pipe, ["a photo of <rex> dog"])[:, 77:]
    place = ids[0].tolist().index(trigger_ids(pipe, "<rex>")[0])
    last = encoder.text_model(ids).last_hidden_state[:, place]
    pooled = read_prompts(pipe, ["a photo of <rex> dog"]).pooled
    assert pooled is not None
    torch.testing.assert_close(pooled, encoder.text_projection(last))
