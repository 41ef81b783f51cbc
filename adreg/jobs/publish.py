"""The publish job: the Hub is asked whether it will take it, then it is made ready and sent.

inputs: kind ("checkpoint" or "adapter"), format ("lora", "diffusers" or "both"), path (the folder,
or the adapter's file), name, repo ("user/name"), private, replace (whether files there that are
somebody else's may be), endpoint (or null: HF_ENDPOINT), description
(adreg.publish.card.Description), previews ([{path, prompt}]), lora (null; of a checkpoint that is
published as a LoRA: rank, and checkpoint and base as the export job has them). The token comes
from the environment or the Hub's login.
"""

from __future__ import annotations

from pathlib import Path

from adreg.domain import Json, Progress
from adreg.publish.client import Target, check_endpoint
from adreg.publish.files import LORA_FILE, LoraFiles
from adreg.publish.foreign import title
from adreg.publish.hub import publish
from adreg.publish.preflight import admitted, base_license
from adreg.publish.prepare import local_findings, prepare, wish_of, with_license


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Publish; returns what `adreg.publish.hub.publish` does, `format`, `left_out`, `truncation`.

    Raises what preparing and publishing raise: nothing is sent before all files are checked, and
    nothing long is done before the Hub has said that it will take them.
    """
    planned = [upload.path for upload in prepare(inputs).uploads]
    planned += [LORA_FILE] if inputs["lora"] else []
    progress("checking", 0, 3)
    url = check_endpoint(inputs["endpoint"])
    target = admitted(inputs["repo"], url, wish_of(inputs, planned))
    inputs = _with_hub_license(inputs, target)
    lora, truncation = _cut(inputs, staging, progress)
    prepared = prepare(inputs, lora)
    done = publish(
        target,
        wish_of(inputs, [upload.path for upload in prepared.uploads]),
        prepared.uploads,
        message=title(inputs["name"]),
        progress=progress,
    )
    sizes = [upload.size for upload in prepared.uploads]
    warned = [f"{f.says}; {f.remedy}" for f in local_findings(inputs, sizes) if f.state != "ok"]
    return {
        **done,
        "format": inputs["format"],
        "bytes": sum(sizes),
        "left_out": list(prepared.left_out),
        "truncation": truncation,
        "notices": [*done["notices"], *warned],
    }


def _with_hub_license(inputs: Json, target: Target) -> Json:
    base = inputs["description"]["base"]
    if base.get("license"):
        return inputs
    return with_license(inputs, base_license(target, base.get("hub"), base.get("revision")))


def _cut(inputs: Json, staging: Path, progress: Progress) -> tuple[LoraFiles | None, Json | None]:
    if inputs["lora"] is None:
        return None, None
    # Here alone, so that a child that cuts nothing does not load torch.
    from adreg.jobs.cut import cut_lora

    return cut_lora(inputs["lora"], staging, progress)
