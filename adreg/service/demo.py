"""`adreg demo`: the whole road once, from photos in a watched folder to a merged checkpoint.

Everything happens in one folder with a registry of its own; the user's registry stays as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageOps

from adreg.bases.find import POCKET
from adreg.diffusion.sheet import SMALLEST_CELL, sheet
from adreg.domain import Adapter, Json
from adreg.errors import ArtifactError, NotFoundError
from adreg.pocket.subjects import write_subjects
from adreg.registry import adapters
from adreg.service import merging, watching
from adreg.service.generating import request_pictures
from adreg.service.supervisor import Tick, quiet, run_now
from adreg.service.training import SUBJECT_FILE
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from adreg.train.subject import open_image, read_subject

DRAWN = {"rex": "dog", "tom": "cat", "brew": "mug"}
PHOTOS, PICTURES_EACH = 5, 3
CHECKPOINT, PICTURE = "demo", "demo.png"
_SETTLE_SECONDS = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Demo:
    """Where the demo works; `home` is a registry like any other."""

    folder: Path
    say: Say
    tick: Tick = quiet

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def watched(self) -> Path:
        return self.folder / "subjects"


def run_demo(demo: Demo, settings: Settings, subjects: Path | None) -> Json:
    """Photos, training, scores, merge, picture; the names and paths of what was made.

    Raises NotFoundError and ArtifactError for a folder without subjects, else what the steps
    raise.
    """
    own = replace(settings, home=demo.home, base=POCKET, settle_seconds=_SETTLE_SECONDS)
    ws = Workspace.open(own)
    dropped = _drop(demo, subjects)
    demo.say(f"1/4 dropped {', '.join(sorted(dropped))} into {demo.watched}")
    _watch(demo, ws)
    learnt = [_adapter_of(ws, name) for name in sorted(dropped)]
    demo.say(f"3/4 merging {' '.join(str(adapter.name) for adapter in learnt)}")
    _merge(demo, ws, learnt)
    demo.say("4/4 pictures: photos, each adapter alone, merged, untouched base, same noise")
    picture = _picture(demo, ws, learnt, dropped)
    checkpoint = ws.registry.checkpoint(CHECKPOINT)
    return {
        "picture": str(picture),
        "checkpoint": checkpoint.name,
        "path": str(checkpoint.path),
        "adapters": [adapter.name for adapter in learnt],
        "home": str(demo.home),
    }


def _drop(demo: Demo, subjects: Path | None) -> dict[str, Path]:
    """Subject folders into the watched one; name -> folder. Copied aside, then moved in."""
    incoming = demo.folder / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    if subjects is None:
        write_subjects(incoming, DRAWN, PHOTOS, 0)
        for name, word in DRAWN.items():
            (incoming / name / SUBJECT_FILE).write_text(f'class = "{word}"\n')
    else:
        _copy_subjects(subjects, incoming)
    demo.watched.mkdir(exist_ok=True)
    dropped = {}
    for folder in sorted(incoming.iterdir()):
        target = demo.watched / folder.name
        if not target.exists():
            folder.rename(target)
        dropped[target.name] = target
    shutil.rmtree(incoming)
    return dropped


def _copy_subjects(subjects: Path, incoming: Path) -> None:
    if not subjects.is_dir():
        raise NotFoundError(f"no folder {subjects}", remedy="give a folder of subject folders")
    folders = sorted(p for p in subjects.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise ArtifactError(f"{subjects} has no subject folders in it", remedy="one folder a thing")
    for folder in folders:
        shutil.copytree(folder, incoming / folder.name)


def _watch(demo: Demo, ws: Workspace) -> None:
    demo.say("2/4 watching: training and scoring each")
    rules = watching.WatchRules(method=ws.settings.method, base=POCKET, scorer=POCKET)
    broken = watching.watch(ws, demo.watched, rules, once=True, say=demo.say, tick=demo.tick)
    if broken:
        raise broken[0]


def _adapter_of(ws: Workspace, folder: str) -> Adapter:
    """The newest adapter that was trained from a folder of that name."""
    found = adapters.listing(ws.registry.db, ws.registry.store)
    return next(adapter for adapter in found if adapter.source == folder)


def _merge(demo: Demo, ws: Workspace, learnt: Sequence[Adapter]) -> None:
    recipe, base = merging.make_recipe(ws, [str(adapter.name) for adapter in learnt], "loraclr")
    run_now(ws, merging.request_merge(ws, recipe, base, CHECKPOINT), demo.tick)


def _picture(
    demo: Demo, ws: Workspace, learnt: Sequence[Adapter], dropped: dict[str, Path]
) -> Path:
    """One sheet: a column a picture, the four rows one below the other."""
    photos = [image for a in learnt for image in _photos(dropped[str(a.source)])]
    alone = [image for a in learnt for image in _sample(demo, ws, [a], adapter=str(a.name))]
    merged = _sample(demo, ws, learnt, checkpoint=CHECKPOINT)
    base = _sample(demo, ws, learnt, plain=True)
    page = sheet(
        [photos, alone, merged, base],
        labels_left=["photos", "adapter alone", "merged", "untouched base"],
        labels_top=[prompt for a in learnt for prompt in [_prompt(a)] * PICTURES_EACH],
    )
    page.save(demo.folder / PICTURE)
    return demo.folder / PICTURE


def _photos(folder: Path) -> list[Image.Image]:
    """The first photos, cut to the sheet's cells: as taken, they are thousands of pixels wide."""
    files = [folder / name for name in read_subject(folder).images[:PICTURES_EACH]]
    shown = [ImageOps.fit(open_image(file), (SMALLEST_CELL, SMALLEST_CELL)) for file in files]
    return shown + shown[:1] * (PICTURES_EACH - len(shown))


def _prompt(adapter: Adapter, plain: bool = False) -> str:
    concept = adapter.concepts[-1]
    return f"a photo of {'a' if plain else concept.trigger} {concept.class_word}"


def _sample(
    demo: Demo,
    ws: Workspace,
    learnt: Sequence[Adapter],
    *,
    adapter: str | None = None,
    checkpoint: str | None = None,
    plain: bool = False,
) -> list[Image.Image]:
    """PICTURES_EACH pictures of each adapter's prompt, with the same seeds whatever makes them."""
    out = demo.folder / "pictures" / (adapter or checkpoint or POCKET)
    job = request_pictures(
        ws,
        [_prompt(a, plain) for a in learnt],
        list(range(PICTURES_EACH)),
        adapters=[adapter] if adapter else [],
        checkpoint=checkpoint,
        base=POCKET if plain else None,
        out=out,
    )
    run_now(ws, job, demo.tick)
    return [Image.open(file).convert("RGB") for file in sorted(out.glob("*.png"))]
