"""The model card: YAML for the Hub's search and gallery, then what a reader needs to use it.

The YAML is huggingface_hub's (ModelCardData), so no text can break out of it. In the body every
piece of text that came from outside (names, class words, prompts) is made one printable line and
escaped. No dates and no paths: the same facts give the same card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from huggingface_hub import ModelCard, ModelCardData

from adreg.errors import UsageError
from adreg.formats.spelling import ENCODERS

Kind = Literal["checkpoint", "adapter"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$:-])")
_LICENSES = {"pocket": "apache-2.0"}
_GUIDANCE = {"pocket": 3.0}


class BaseFacts(TypedDict, total=False):
    """The base: its name ("pocket", a folder's name or a Hub id) and what is known of it."""

    name: str
    digest: str
    license: str


class ConceptFacts(TypedDict):
    trigger: str
    class_word: str
    kind: str


class ScoreFacts(TypedDict):
    name: str
    value: float


class AdapterFacts(TypedDict):
    name: str
    digest: str
    weight: float


class RenameFacts(TypedDict):
    """A trigger that two adapters shared, and what it is called in this checkpoint."""

    adapter: str
    old: str
    new: str


class RecipeFacts(TypedDict, total=False):
    """How it was made; a merge has adapters, renames and its complete `toml`, a training has rank
    and steps."""

    method: str
    rank: int
    steps: int
    adapters: list[AdapterFacts]
    renames: list[RenameFacts]
    toml: str


class Description(TypedDict, total=False):
    """The facts of a card, as the registry has them. Only `base` is required."""

    digest: str
    base: BaseFacts
    concepts: list[ConceptFacts]
    scores: list[ScoreFacts]
    recipe: RecipeFacts


@dataclass(frozen=True)
class Card:
    """All that a card is rendered from.

    `previews` are (path in the repository, prompt), `embeddings` (trigger, path in the
    repository): an adapter's token embeddings travel in files of their own. `lora` says whether
    there are factors beside them.
    """

    kind: Kind
    name: str
    repo: str
    description: Description
    previews: Sequence[tuple[str, str]] = ()
    embeddings: Sequence[tuple[str, str]] = field(default=())
    lora: bool = True

    @property
    def base(self) -> str:
        """The base's name. Raises UsageError where the description has none."""
        name = self.description.get("base", {}).get("name")
        if not name:
            raise UsageError(f"the description of {self.name!r} does not name a base")
        return one_line(name)

    @property
    def concepts(self) -> list[ConceptFacts]:
        return self.description.get("concepts", [])

    @property
    def prompt(self) -> str:
        """A prompt that calls every concept: "a photo of <rex> dog, <tom> cat"."""
        called = (one_line(f"{c['trigger']} {c['class_word']}") for c in self.concepts)
        return f"a photo of {', '.join(called)}" if self.concepts else "a photo"


def render(card: Card) -> str:
    """README.md as text. Raises UsageError where the description does not name the base."""
    parts = [
        f"# {_plain(card.name)}",
        _summary(card),
        "<Gallery />",
        _triggers(card.concepts),
        f"## Use it\n\n```py\n{snippet(card)}\n```",
        _scores(card.description.get("scores", [])),
        _recipe(card),
    ]
    body = "\n\n".join(part for part in parts if part)
    yaml = _data(card).to_yaml(line_break="\n")
    return str(ModelCard(f"---\n{yaml}\n---\n\n{body}\n"))


def snippet(card: Card) -> str:
    """Python that loads the repository with plain diffusers and makes one image."""
    loading = {"checkpoint": _load_checkpoint, "adapter": _load_adapter}[card.kind]
    guidance = _GUIDANCE.get(card.base, 7.5)
    return "\n".join(
        [
            *loading(card),
            f"image = pipe({_literal(card.prompt)}, guidance_scale={guidance}).images[0]",
            'image.save("image.png")',
        ]
    )


def one_line(text: str) -> str:
    """Text on one line, printable characters only, blanks squeezed."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def _data(card: Card) -> ModelCardData:
    base = card.description.get("base", {})
    adapter = card.kind == "adapter"
    on_hub = card.base if _HUB_ID.fullmatch(card.base) else None
    tags = ["text-to-image", "diffusers", "stable-diffusion"]
    if adapter:
        tags += ["lora", "template:sd-lora"] if card.lora else ["textual_inversion"]
    else:
        tags += ["merge"]
    widget = [{"text": one_line(text), "output": {"url": path}} for path, text in card.previews]
    return ModelCardData(
        license=base.get("license") or _LICENSES.get(card.base),
        library_name="diffusers",
        pipeline_tag="text-to-image",
        base_model=on_hub,
        base_model_relation=("adapter" if adapter else "merge") if on_hub else None,
        tags=[*tags, "adreg"],
        instance_prompt=card.prompt if card.concepts else None,
        widget=widget or None,
    )


def _summary(card: Card) -> str:
    holds = "LoRA and token embeddings" if card.lora else "token embeddings alone"
    what = {
        "checkpoint": "A complete text-to-image model with concept adapters merged in",
        "adapter": f"A concept adapter ({holds}) for a text-to-image model",
    }[card.kind]
    classes = ", ".join(_plain(concept["class_word"]) for concept in card.concepts)
    taught = f" It knows: {classes}." if classes else ""
    return f"{what}, on the base {_code(card.base)}.{taught}"


def _triggers(concepts: Iterable[ConceptFacts]) -> str:
    rows = [(_code(c["trigger"]), _plain(c["class_word"])) for c in concepts]
    return _section("Trigger words", ("Trigger", "Class"), rows)


def _scores(scores: Iterable[ScoreFacts]) -> str:
    rows = [(_code(score["name"]), f"{score['value']:.4g}") for score in scores]
    return _section("Scores", ("Score", "Value"), rows)


def _recipe(card: Card) -> str:
    recipe = card.description.get("recipe", {})
    base, digest = card.description.get("base", {}), card.description.get("digest")
    facts: list[tuple[str, Any]] = [
        ("Method", recipe.get("method")),
        ("Base", card.base),
        ("Base digest", base.get("digest")),
        ("Rank", recipe.get("rank")),
        ("Steps", recipe.get("steps")),
        (f"{card.kind.capitalize()} digest", digest),
    ]
    rows = [(name, _code(value)) for name, value in facts if value is not None]
    adapters = [
        (_plain(a["name"]), f"{a['weight']:g}", _code(a["digest"]))
        for a in recipe.get("adapters", [])
    ]
    renames = [
        (_plain(r["adapter"]), _code(r["old"]), _code(r["new"])) for r in recipe.get("renames", [])
    ]
    parts = [
        _section("Recipe", ("What", "Value"), rows),
        _table(("Adapter", "Weight", "Digest"), adapters),
        _table(("Adapter", "Its trigger", "Trigger here"), renames),
        _toml(recipe.get("toml", "")),
        "Made with adreg.",
    ]
    return "\n\n".join(part for part in parts if part)


def _toml(text: str) -> str:
    """The recipe to be copied into a file, in a fence that nothing inside can end."""
    if not text:
        return ""
    lines = "\n".join(map(_printable, text.strip().splitlines()))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", lines)), default=0))
    return f"The whole recipe, for `adreg merge --recipe FILE`:\n\n{fence}toml\n{lines}\n{fence}"


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line)


def _load_checkpoint(card: Card) -> list[str]:
    return [
        "from diffusers import DiffusionPipeline",
        "",
        f"pipe = DiffusionPipeline.from_pretrained({_literal(card.repo)})",
    ]


def _load_adapter(card: Card) -> list[str]:
    repo = _literal(card.repo)
    lines = ["from diffusers import DiffusionPipeline", ""]
    if card.base == "pocket":
        lines.insert(0, "from adreg.pocket.paths import BASE_DIR")
        base = "BASE_DIR"
    elif _HUB_ID.fullmatch(card.base):
        base = _literal(card.base)
    else:
        lines.append("# the folder of the base this adapter was trained on")
        base = _literal(f"path/to/{card.base}")
    lines.append(f"pipe = DiffusionPipeline.from_pretrained({base})")
    if card.lora:
        weights = '"pytorch_lora_weights.safetensors"'
        lines.append(f"pipe.load_lora_weights({repo}, weight_name={weights})")
    return lines + [
        f"pipe.load_textual_inversion({repo}, weight_name={_literal(path)}{_encoder(path)})"
        for _, path in card.embeddings
    ]


def _encoder(path: str) -> str:
    """Which of SDXL's text encoders an embedding is for: diffusers has to be told."""
    parts = dict(zip(ENCODERS, ("", "_2"), strict=True))
    found = next(
        (end for name, end in parts.items() if path.endswith(f".{name}.safetensors")), None
    )
    if found is None:
        return ""
    return f", text_encoder=pipe.text_encoder{found}, tokenizer=pipe.tokenizer{found}"


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"## {title}\n\n{_table(head, rows)}" if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """One line of Markdown that shows the text as it is."""
    escaped = _MARKDOWN.sub(r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: Any) -> str:
    """The text as a code span, also inside a table: the fence is longer than any run inside."""
    line = one_line(text).replace("|", r"\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def _literal(text: str) -> str:
    """A Python string literal in double quotes."""
    return '"' + one_line(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
