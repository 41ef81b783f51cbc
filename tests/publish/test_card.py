from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from adreg.errors import UsageError
from adreg.publish.card import Card, Description, one_line, render, snippet

HOSTILE = '": [x]\n---\n# owned | `` <script>alert(1)</script> \\ """ ```\n\u202e\x00'


def description(text: str = "dog", base: str = "pocket") -> Description:
    return {
        "digest": "d" * 64,
        "base": {"name": base, "digest": "b" * 64},
        "concepts": [
            {"trigger": "<rex>", "class_word": text, "kind": "object"},
            {"trigger": "<tom>", "class_word": "cat", "kind": "object"},
        ],
        "scores": [{"name": "kps/1", "value": 0.123456}],
        "recipe": {
            "method": "loraclr",
            "adapters": [{"name": text, "digest": "a" * 64, "weight": 0.5}],
            "renames": [{"adapter": "tom", "old": "<rex>", "new": "<tom>"}],
        },
    }


def card(**changes: Any) -> Card:
    facts: dict[str, Any] = {
        "kind": "checkpoint",
        "name": "trio",
        "repo": "me/trio",
        "description": description(),
        "previews": [("images/0.png", "a photo of <rex> dog")],
    }
    return Card(**(facts | changes))


def test_the_card_of_a_checkpoint() -> None:
    text = render(card())
    parsed = ModelCard(text)
    assert parsed.data.to_dict() == {
        "license": "apache-2.0",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "stable-diffusion", "merge", "adreg"],
        "instance_prompt": "a photo of <rex> dog, <tom> cat",
        "widget": [{"text": "a photo of <rex> dog", "output": {"url": "images/0.png"}}],
    }
    for said in (
        "<Gallery />",
        "| `<rex>` | dog |",
        "| `kps/1` | 0.1235 |",
        f"| dog | 0.5 | `{'a' * 64}` |",
        "| tom | `<rex>` | `<tom>` |",
        "| Method | `loraclr` |",
        'DiffusionPipeline.from_pretrained("me/trio")',
        "adreg",
    ):
        assert said in parsed.text
    assert not re.search(r"\d{4}-\d\d-\d\d|/home|/tmp", text)


def test_the_card_of_an_adapter_on_a_hub_base() -> None:
    made = card(
        kind="adapter",
        description=description(base="runwayml/sd"),
        embeddings=[("<rex>", "embeddings/rex.safetensors")],
    )
    data = ModelCard(render(made)).data.to_dict()
    assert data["base_model"] == "runwayml/sd"
    assert data["base_model_relation"] == "adapter"
    assert "license" not in data
    assert {"lora", "template:sd-lora"} <= set(data["tags"])
    assert snippet(made).splitlines()[2:5] == [
        'pipe = DiffusionPipeline.from_pretrained("runwayml/sd")',
        'pipe.load_lora_weights("me/trio", weight_name="pytorch_lora_weights.safetensors")',
        'pipe.load_textual_inversion("me/trio", weight_name="embeddings/rex.safetensors")',
    ]


def test_a_base_that_is_no_hub_id_is_no_base_model() -> None:
    data = ModelCard(render(card(description=description(base="my-base")))).data.to_dict()
    assert "base_model" not in data
    assert "base_model_relation" not in data
    assert "license" not in data


def test_a_bare_description_is_enough_and_a_base_is_needed() -> None:
    text = render(card(description={"base": {"name": "pocket"}}, previews=()))
    assert "instance_prompt" not in text
    assert "Trigger words" not in text
    with pytest.raises(UsageError, match="base"):
        render(card(description={}))


def assert_contained(text: str, hostile: str) -> None:
    """The hostile text is data in the YAML, and one harmless line in the body."""
    parsed = ModelCard(text)
    known = {"license", "library_name", "pipeline_tag", "tags", "instance_prompt", "widget"}
    assert parsed.data.to_dict().keys() == known
    called = one_line(f"<rex> {hostile}")
    assert parsed.data.instance_prompt == f"a photo of {called}, <tom> cat"
    assert parsed.data.widget[0]["text"] == one_line(hostile)
    body = parsed.text
    headings = [line for line in body.splitlines() if line.startswith("#")]
    wanted = ["Trigger words", "Use it", "Scores", "Recipe"]
    assert [h.lstrip("# ") for h in headings[1:]] == wanted
    assert body.count("\n```") == 2
    program = body.split("```py\n")[1].split("\n```")[0]
    assert ast.parse(program)
    assert str(ModelCard(text)) == text


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    made = card(
        name=HOSTILE, description=description(HOSTILE), previews=[("images/0.png", HOSTILE)]
    )
    text = render(made)
    path = tmp_path / "README.md"
    path.write_bytes(text.encode())
    assert_contained(str(ModelCard.load(path)), HOSTILE)
    program = snippet(made)
    assert "<script" not in text.split("\n---\n", 1)[1].replace(program, "")


@given(st.text(min_size=1, max_size=40).filter(one_line))
def test_a_table_shows_text_as_it_is(text: str) -> None:
    """Read by a Markdown parser: each hostile cell is that text and no other markup."""
    facts = description(text)
    facts["concepts"][0]["trigger"] = text
    body = ModelCard(render(card(description=facts))).text
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    start = next(i for i, token in enumerate(tokens) if token.type == "td_open")
    trigger, class_word = (tokens[i].children or [] for i in (start + 1, start + 4))
    assert [(part.type, part.content) for part in trigger] == [("code_inline", one_line(text))]
    assert {part.type for part in class_word} <= {"text", "text_special"}
    assert "".join(part.content for part in class_word) == one_line(text)


@given(st.text(max_size=60))
def test_any_text_stays_text(text: str) -> None:
    made = card(name=text, description=description(text), previews=[("images/0.png", text)])
    assert_contained(render(made), text)


def test_the_same_facts_give_the_same_card() -> None:
    assert render(card()) == render(card())


def test_the_snippet_quotes_what_it_is_given() -> None:
    made = card(description=description('a "big" \\ dog'))
    call = ast.parse(snippet(made)).body[2]
    assert isinstance(call, ast.Assign)
    quoted = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
    assert 'a photo of <rex> a "big" \\ dog, <tom> cat' in quoted


def test_tokens_alone_are_loaded_as_textual_inversion() -> None:
    embeddings = [("<rex>", "embeddings/rex.safetensors")]
    made = card(kind="adapter", embeddings=embeddings, lora=False)
    code = snippet(made)
    assert "load_lora_weights" not in code
    assert 'load_textual_inversion("me/trio", weight_name="embeddings/rex.safetensors")' in code
    assert "lora" not in ModelCard(render(made)).data.to_dict()["tags"]


def test_the_card_says_which_of_sdxls_text_encoders_an_embedding_is_for() -> None:
    names = ("rex.clip_g", "rex.clip_l")
    embeddings = [("<rex>", f"embeddings/{name}.safetensors") for name in names]
    lines = snippet(card(kind="adapter", embeddings=embeddings)).splitlines()
    told = [line for line in lines if "load_textual_inversion" in line]
    assert told[0].endswith(
        'clip_g.safetensors", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)'
    )
    assert told[1].endswith(
        'clip_l.safetensors", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)'
    )


@given(st.text(max_size=40))
def test_a_merges_whole_recipe_is_one_block_that_can_be_copied(text: str) -> None:
    facts = description()
    written = tomli_w.dumps({"method": "concat", "adapters": [{"name": one_line(text)}]})
    facts["recipe"]["toml"] = f"# {one_line(text)}\n{written}"
    body = ModelCard(render(card(description=facts))).text
    (block,) = [t for t in MarkdownIt("commonmark").parse(body) if t.info == "toml"]
    assert tomllib.loads(block.content)["adapters"] == [{"name": one_line(text)}]
    assert block.content.splitlines()[0].startswith("#")
    assert "toml" not in render(card())
