"""What a checkpoint is exported as: read from options, held against each other. Torch-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from adreg.domain import Json, size_in_bytes
from adreg.errors import UsageError

Form = Literal["single", "folder", "lora"]
FORMS: tuple[Form, ...] = get_args(Form)
DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
"""How options and how safetensors call the numbers that can be written."""
SUFFIX = ".safetensors"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class ExportSpec:
    """One way to write a checkpoint.

    `dtype` is one of DTYPES, None for that of the weights; `rank` of a LoRA's factors, None for as
    much as the change has; `shard_bytes` the most that a folder's weight files hold.
    """

    form: Form
    dtype: str | None = None
    rank: int | None = None
    kohya: bool = False
    shard_bytes: int | None = None

    def to_json(self) -> Json:
        return asdict(self)


def export_spec(
    out: Path,
    form: str | None = None,
    *,
    dtype: str | None = None,
    rank: int | None = None,
    kohya: bool = False,
    shard_size: str | None = None,
) -> ExportSpec:
    """The spec of options; without `form`, `out` says it: a .safetensors file, or a folder.

    Raises UsageError for an unknown form, dtype or size, and for an option of another form.
    """
    if out.suffix.lower() in _PICKLES:
        raise UsageError(
            f"{out}: pickles are not written", remedy=f"name a {SUFFIX} file, or a folder"
        )
    is_file = out.suffix.lower() == SUFFIX
    form = form or ("single" if is_file else "folder")
    if form not in FORMS:
        raise UsageError(f"--as {form}: no such form", remedy=f"use {', '.join(FORMS)}")
    if is_file == (form == "folder"):
        what = f"a {SUFFIX} file" if form != "folder" else f"a folder, without {SUFFIX}"
        raise UsageError(f"--as {form} cannot be written to {out}", remedy=f"name {what}")
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: no such dtype", remedy=f"use {', '.join(DTYPES)}")
    _check_fits(form, "lora", {"--rank": rank, "--kohya": kohya})
    _check_fits(form, "folder", {"--shard-size": shard_size})
    shards = None if shard_size is None else size_in_bytes(shard_size, "--shard-size")
    return ExportSpec(_known(form), dtype, rank, kohya, shards)


def _known(form: str) -> Form:
    return next(known for known in FORMS if known == form)


def _check_fits(form: str, needed: Form, options: dict[str, object]) -> None:
    for option, value in options.items():
        if value and form != needed:
            raise UsageError(f"{option} is for --as {needed} only", remedy="leave it out")
