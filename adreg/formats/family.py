"""Which family of base models an adapter or a base belongs to, told by shapes.

Fine-tunes of one architecture cannot be told apart by shape, only by digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

UNKNOWN = "unknown"
_BY_WIDTH = {128: "pocket", 768: "sd1", 1024: "sd2", 1280: "sdxl-refiner", 2048: "sdxl"}
_BY_CLAIM = (("sdxl", "sdxl"), ("sd_v1", "sd1"), ("sd_v2", "sd2"), ("pocket", "pocket"))
CLAIMS = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
ARCHITECTURES = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-768-v",
    "sdxl": "stable-diffusion-xl-v1-base",
}
RESOLUTIONS = {"pocket": "64x64", "sd2": "768x768", "sdxl": "1024x1024"}
USUAL_RESOLUTION = "512x512"


def family_of_width(width: int) -> str:
    """The family whose cross-attention reads text features of `width`; `width-<n>` for others."""
    return _BY_WIDTH.get(width, f"width-{width}")


def text_widths(modules: Iterable[tuple[str, int]]) -> set[int]:
    """Widths of the text features, from (module name or key, input width) pairs.

    Keys and values of cross-attention read the text encoder's output; without any, the text
    encoder's own attention has the same width.
    """
    pairs = list(modules)
    crossing = {
        width for name, width in pairs if "attn2" in name and name.endswith(("to_k", "to_v"))
    }
    return crossing or {
        width for name, width in pairs if name.endswith(("q_proj", "k_proj", "v_proj"))
    }


def vote(
    modules: Sequence[tuple[str, int]], metadata: Mapping[str, str], tokens: Iterable[int] = ()
) -> tuple[str, list[str]]:
    """(family, reasons) from shapes and the header's claim; shapes win, a conflict is told.

    `tokens` are the widths of embeddings: they tell where there is no module.
    """
    widths = sorted(text_widths(modules) if modules else set(tokens))
    claim = metadata.get("ss_base_model_version", "")
    claimed = next((family for start, family in _BY_CLAIM if claim.startswith(start)), UNKNOWN)
    reasons = [f"text features are {width} wide: {family_of_width(width)}" for width in widths]
    if claim:
        reasons.append(f"the header claims {claim[:80]!r}: {claimed}")
    if len(widths) != 1:
        reasons.append("shapes do not decide")
        return (claimed if not widths else UNKNOWN), reasons
    family = family_of_width(widths[0])
    if claimed not in (UNKNOWN, family):
        reasons.append(f"header and shapes disagree; shapes win: {family}")
    return family, reasons
