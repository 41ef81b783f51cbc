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
from adreg.publish.card import Card, Description, render, snippet
from adreg.publish.markdown import one_line

HOSTILE = '": [x]\n---\n# owned | `` <script>alert(1)</script> \\ """ ```\n\u202e\x00'


def description(text: str = "dog", base: str = "pocket") -> Description:
    return {
        "digest": "d" * 64,
        "prompt": f"a photo of <rex> {text}, <tom> cat",
        "base": {"name": base, "digest": "b" * 64, "license": "apache-2.0"},
        "concepts": [
            {"trigger": "<rex>", "class_word": text, "kind": "object"},
            {"trigger": "<tom>", "class_word": "cat", "kind": "object"},
        ],
        "scores": [
            {"name": "kps/1", "value": 0.123456, "interval": [0.1, 0.15678]},
            {"name": "forgetting/1", "value": 2, "interval": None},
        ],
        "recipe": {
            "method": "loraclr",
            "adapters": [
                {"name": text, "digest": "a" * 64, "weight": 0.5},
                {"name": "tom", "digest": "c" * 64, "weight": 1.0},
            ],
            "renames": [{"adapter": "tom", "old": "<rex>", "new": "<tom>"}],
        },
        "lineage": [
            {"name": text, "digest": "a" * 64, "method": "cat", "line": None, "after": None},
            {"name": "tom", "digest": "c" * 64, "method": "ewc", "line": text, "after": text},
        ],
    }


def card(**changes: Any) -> Card:
    facts: dict[str, Any] = {
        "kind": "checkpoint",
        "format": "lora" if changes.get("kind") == "adapter" else "diffusers",
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
        "| `kps/1` | 0.1235 | 0.1 to 0.1568 |",
        "| `forgetting/1` | 2 |  |",
        f"| tom | `ewc` | dog | dog | `{'c' * 64}` |",
        f"| dog | 0.5 | `{'a' * 64}` |",
        "| tom | `<rex>` | `<tom>` |",
        "| Method | `loraclr` |",
        'DiffusionPipeline.from_pretrained("me/trio", dtype=torch.float32)',
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
    assert data["license"] == "apache-2.0"
    assert {"lora", "template:sd-lora"} <= set(data["tags"])
    assert snippet(made).splitlines()[3:6] == [
        'pipe = DiffusionPipeline.from_pretrained("runwayml/sd", dtype=torch.float32)',
        'pipe.load_lora_weights("me/trio", weight_name="pytorch_lora_weights.safetensors")',
        'pipe.load_textual_inversion("me/trio", weight_name="embeddings/rex.safetensors")',
    ]


def test_a_base_that_is_no_hub_id_is_no_base_model() -> None:
    data = ModelCard(render(card(description=description(base="my-base")))).data.to_dict()
    assert "base_model" not in data
    assert "base_model_relation" not in data


def test_a_bare_description_is_enough_and_a_base_is_needed() -> None:
    text = render(card(description={"base": {"name": "pocket"}}, previews=()))
    assert not {"instance_prompt", "license"} & ModelCard(text).data.to_dict().keys()
    assert "Trigger words" not in text
    with pytest.raises(UsageError, match="base"):
        render(card(description={}))


def assert_contained(text: str, hostile: str) -> None:
    """The hostile text is data in the YAML, and one harmless line in the body."""
    parsed = ModelCard(text)
    known = {"license", "library_name", "pipeline_tag", "tags", "instance_prompt", "widget"}
    assert parsed.data.to_dict().keys() == known
    assert parsed.data.instance_prompt == one_line(f"a photo of <rex> {hostile}, <tom> cat")
    assert parsed.data.widget[0]["text"] == one_line(hostile)
    body = parsed.text
    headings = [line for line in body.splitlines() if line.startswith("#")]
    wanted = ["Trigger words", "Use it", "Scores", "Recipe", "Lineage"]
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


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_any_trigger_name_and_prompt_come_back_from_the_yaml(
    trigger: str, name: str, prompt: str
) -> None:
    facts = description()
    facts["concepts"][0]["trigger"] = trigger
    facts["prompt"] = f"a photo of {trigger}"
    previews = [("images/0.png", prompt), ("images/1.png", name)]
    data = ModelCard(render(card(name=name, description=facts, previews=previews))).data
    assert data.instance_prompt == one_line(f"a photo of {trigger}")
    assert [shown["text"] for shown in data.widget] == [one_line(prompt), one_line(name)]


def test_the_same_facts_give_the_same_card() -> None:
    assert render(card()) == render(card())


def test_the_snippet_quotes_what_it_is_given() -> None:
    made = card(description=description('a "big" \\ dog'))
    call = ast.parse(snippet(made)).body[3]
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


def test_a_base_that_was_added_from_the_hub_under_another_name() -> None:
    facts = description(base="sd15")
    facts["base"] |= {"hub": "them/sd", "revision": "c0ffee"}
    made = card(kind="adapter", description=facts, embeddings=[])
    assert ModelCard(render(made)).data.to_dict()["base_model"] == "them/sd"
    assert 'from_pretrained("them/sd", revision="c0ffee", ' in snippet(made)


@pytest.mark.parametrize(
    ("form", "merged", "relation"),
    [
        ("lora", 2, "adapter"),
        ("diffusers", 2, "merge"),
        ("both", 2, "merge"),
        ("both", 1, "finetune"),
    ],
)
def test_how_a_checkpoint_is_related_to_its_base(form: str, merged: int, relation: str) -> None:
    facts = description(base="them/sd")
    del facts["recipe"]["adapters"][merged:]
    made = ModelCard(render(card(format=form, description=facts))).data.to_dict()
    assert made["base_model_relation"] == relation
    assert ("merge" in made["tags"]) == (relation == "merge")
    assert ("lora" in made["tags"]) == (form != "diffusers")


def test_both_are_told_how_to_load() -> None:
    made = card(format="both", embeddings=[("<rex>", "embeddings/rex.safetensors")])
    blocks = [t.content for t in MarkdownIt("commonmark").parse(render(made)) if t.info == "py"]
    assert ['from_pretrained("me/trio", ' in block for block in blocks] == [True, False]
    assert ["load_lora_weights" in block for block in blocks] == [False, True]
    assert all(ast.parse(block) for block in blocks)


def test_a_lora_that_was_cut_does_not_bear_the_checkpoints_digest() -> None:
    text = render(card(format="lora"))
    assert f"| Cut from checkpoint | `{'d' * 64}` |" in text
    assert "| Checkpoint digest |" not in text


@given(st.text(max_size=60))
def test_any_licence_and_any_line_stay_text(text: str) -> None:
    facts = description(text)
    facts["base"] |= {"license": "other", "license_name": one_line(text), "license_link": text}
    facts["base"] |= {"hub": "them/sd", "revision": text}
    data = ModelCard(render(card(description=facts))).data.to_dict()
    assert data["license"] == "other"
    assert data.get("license_name", "") == one_line(text)
    assert data["base_model"] == "them/sd"
