"""The lines of Python that load what was published, with plain diffusers."""

from __future__ import annotations

from collections.abc import Sequence

from adreg.formats.spelling import ENCODERS
from adreg.publish.files import LORA_FILE
from adreg.publish.markdown import one_line

_IMPORTS = ["import torch", "from diffusers import DiffusionPipeline", ""]
# Without it a text encoder whose config names halves is loaded in halves beside a UNet that is not.
_DTYPE = "dtype=torch.float32"


def load_checkpoint(repo: str) -> list[str]:
    """A whole pipeline of the repository's own."""
    return [*_IMPORTS, _load(literal(repo))]


def load_adapter(
    repo: str,
    base: str,
    hub: str | None,
    revision: str | None,
    *,
    lora: bool,
    embeddings: Sequence[str],
) -> list[str]:
    """The base, then the LoRA file (where there is one) and the embeddings at their paths.

    `hub` is the base's id on the Hub, at `revision`; without it the base is a folder of the
    reader's own, but for pocket, which comes with adreg.
    """
    lines = _load_base(base, hub, revision)
    if lora:
        lines.append(f"pipe.load_lora_weights({literal(repo)}, weight_name={literal(LORA_FILE)})")
    return lines + [
        f"pipe.load_textual_inversion({literal(repo)}, weight_name={literal(path)}{_encoder(path)})"
        for path in embeddings
    ]


def literal(text: str) -> str:
    """A Python string literal in double quotes."""
    return '"' + one_line(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _load_base(base: str, hub: str | None, revision: str | None) -> list[str]:
    if base == "pocket":
        return ["from adreg.pocket.paths import BASE_DIR", *_IMPORTS, _load("BASE_DIR")]
    if hub is None:
        note = "# the folder of the base that it was trained on"
        return [*_IMPORTS, note, _load(literal(f"path/to/{base}"))]
    return [*_IMPORTS, _load(literal(hub), revision)]


def _load(what: str, revision: str | None = None) -> str:
    pinned = f"revision={literal(revision)}, " if revision else ""
    return f"pipe = DiffusionPipeline.from_pretrained({what}, {pinned}{_DTYPE})"


def _encoder(path: str) -> str:
    """Which of SDXL's text encoders an embedding is for: diffusers has to be told."""
    parts = dict(zip(ENCODERS, ("", "_2"), strict=True))
    found = next(
        (end for name, end in parts.items() if path.endswith(f".{name}.safetensors")), None
    )
    if found is None:
        return ""
    return f", text_encoder=pipe.text_encoder{found}, tokenizer=pipe.tokenizer{found}"
