"""The convert job: a single-file checkpoint in, a diffusers folder out, without a network."""

from __future__ import annotations

from pathlib import Path

from adreg.bases.convert import convert
from adreg.bases.parts import files_of
from adreg.domain import Json, Progress
from adreg.errors import ArtifactError
from adreg.store.digest import sha256_file

BASE = "artefact/base"


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Convert into `staging`/artefact/base.

    Inputs: file, sha256 (of the file that was asked for), config (folder of component configs),
    prediction_type, dtype. Outputs: base (folder, relative to staging), files (digests by
    component and name).
    """
    file, out = Path(inputs["file"]), staging / BASE
    progress("reading", 0, 3)
    if sha256_file(file) != inputs["sha256"]:
        raise ArtifactError(f"{file} has changed since it was added", remedy="add it again")
    progress("converting", 1, 3)
    out.parent.mkdir(parents=True, exist_ok=True)
    convert(file, Path(inputs["config"]), inputs["prediction_type"], inputs["dtype"], out)
    progress("hashing", 2, 3)
    files = files_of(out)
    progress("hashing", 3, 3)
    return {"base": BASE, "files": files}
