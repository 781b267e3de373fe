"""The `perco download` command.

LIST (names of OpenImages or MS-COCO photos) ──► FOLDER ──► perco caption, perco train codec
"""

from pathlib import Path
from typing import Annotated

import typer

from perco_lite.files import explain


def download(
    photos: Annotated[Path, typer.Argument(help="One name a line, or OpenImages' CSV.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the photos.")],
    source: Annotated[
        str, typer.Option(help="coco-train2017, openimages-train, …, or a URL with {name}.")
    ],
    limit: Annotated[int, typer.Option(help="Only the first of the list; 0 = all.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Downloads at a time.", min=1)] = 16,
) -> None:
    """Download the photos of a list; run it again after a break to go on."""
    from perco_lite.cli.downloads import download_photos, read_list

    try:
        names = read_list(photos)
        if limit:
            names = dict(list(names.items())[:limit])
        done = download_photos(names, output, source, workers)
    except (OSError, ValueError) as error:
        typer.echo(f"error: {explain(error)}", err=True)
        raise typer.Exit(2) from error
    for name, reason in done.failed.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    typer.echo(f"{output}: {done.present} photos, {done.new} new, {len(done.failed)} failed")
