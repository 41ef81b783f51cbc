"""pocket draw: subjects and styles of the built-in base's world, as folders to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import print_json, print_table

pocket_app = typer.Typer(no_args_is_help=True, help="The built-in base's own drawn world.")


def _classes() -> list[str]:
    from adreg.pocket.world import CLASSES

    return list(CLASSES)


@pocket_app.command()
def draw(
    subjects: Annotated[
        int | None, typer.Option(help="How many subjects; 5 where no styles are asked for.", min=0)
    ] = None,
    class_word: Annotated[
        str | None,
        typer.Option("--class", autocompletion=_classes, help="Their class; else all in turn."),
    ] = None,
    same_colours: Annotated[
        bool, typer.Option("--same-colours", help="One coat for all: only marks tell them apart.")
    ] = False,
    styles: Annotated[int, typer.Option(help="How many drawing styles.", min=0)] = 0,
    photos: Annotated[int, typer.Option(help="Pictures in each folder.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Another seed, other subjects.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Where the folders go.")] = Path("subjects"),
    as_json: options.AsJson = False,
) -> None:
    """Draw subjects that no caption can name, a folder each, to train and measure on."""
    from adreg.service.models import drawing

    number = (0 if styles else 5) if subjects is None else subjects
    wanted = drawing.subject_folders(number, class_word, seed, same_colours)
    made = drawing.draw_folders(out, [*wanted, *drawing.style_folders(styles)], photos, seed)
    if as_json:
        print_json(made)
        return
    columns = ["name", "class", "kind", "pictures", "path"]
    print_table("drawn", columns, [[row[column] for column in columns] for row in made])
