"""``image``: the images of this host."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridtide.cli.asking import ask
from gridtide.cli.command import Session, command
from gridtide.cli.human import duration, number, size
from gridtide.cli.output import table
from gridtide.cli.problems import Failed, WrongUsage
from gridtide.errors import ImageError
from gridtide.model.contexts import ContextFormat
from gridtide.store.ports import Json

if TYPE_CHECKING:
    from gridtide.images.image import Image
    from gridtide.images.store import ImageStore, Progress

Name = Annotated[str, typer.Argument(metavar="NAME", help="The image's name.")]
Where = Annotated[
    Path | None,
    typer.Option("--directory", metavar="DIRECTORY", help="The image store (GRIDTIDE_IMAGES; else this host's)."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    image = typer.Typer(no_args_is_help=True, help="Build, import and keep the images of this host's machines.")
    for name, function in (
        ("build", build),
        ("import", import_disk),
        ("list", list_images),
        ("show", show),
        ("verify", verify),
        ("remove", remove),
        ("prune", prune),
    ):
        command(image, name, connects=False)(function)
    app.add_typer(image, name="image", rich_help_panel="The site")


def build(
    session: Session,
    name: Name,
    recipe: Annotated[
        str, typer.Option("--recipe", metavar="FILE", help="A recipe, or one of ours: thin, batch, slurm, cloud.")
    ],
    tree: Annotated[
        bool, typer.Option("--tree", help="An unpacked tree, for machines of a process cloud, instead of a disk.")
    ] = False,
    directory: Where = None,
) -> None:
    """Make an image from Debian packages, files and a script. Takes root and half a minute or more."""
    from gridtide.images.building import build as build_image
    from gridtide.images.image import ImageKind
    from gridtide.images.recipe import read_recipe

    read, text = read_recipe(recipe)
    began = time.monotonic()
    with _bar(session, f"building {name}") as progress:
        kind = ImageKind.TREE if tree else ImageKind.DISK
        image, contents = build_image(_store(directory), name, read, text, kind=kind, progress=progress)
    document = _document(image) | {"seconds": round(time.monotonic() - began, 1), "entries": contents.count("\n")}
    session.output.document(document)
    session.output.show(f"Built {name}: {image.digest}, {size(image.size)}, {contents.count(chr(10))} entries")


def import_disk(
    session: Session,
    name: Name,
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="A disk: qcow2, raw, vmdk, vdi or vhdx.")],
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="DIGEST", help="What the file's digest must be.")
    ] = None,
    context: Annotated[
        ContextFormat, typer.Option("--context", help="What its machines understand as user-data.")
    ] = ContextFormat.CLOUD_INIT,
    kernel: Annotated[
        Path | None, typer.Option("--kernel", metavar="FILE", help="Boot this kernel, not what is on the disk.")
    ] = None,
    initrd: Annotated[Path | None, typer.Option("--initrd", metavar="FILE", help="Its initial RAM disk.")] = None,
    minimum_memory: Annotated[
        int, typer.Option("--minimum-memory", min=1, metavar="MIB", help="Less memory does not boot it.")
    ] = 512,
    directory: Where = None,
) -> None:
    """Take a disk that somebody else made, for example a distribution's cloud image."""
    from gridtide.images.importing import import_image

    with _bar(session, f"importing {name}") as progress:
        image = import_image(
            _store(directory),
            name,
            source,
            sha256=sha256,
            context=context,
            kernel=kernel,
            initrd=initrd,
            minimum_memory=minimum_memory,
            progress=progress,
        )
    session.output.document(_document(image))
    session.output.show(f"Imported {name}: {image.digest}, {size(image.size)}")


def list_images(session: Session, directory: Where = None) -> None:
    """List this host's images."""
    store = _store(directory)
    rows: list[tuple[str, ...]] = []
    documents: list[Json] = []
    for name in store.names():
        try:
            image = store.get(name)
            description = str(store.manifest(name).get("description", ""))
        except ImageError as error:
            rows.append((name, "", "damaged", "", "", "", error.what))
            documents.append({"name": name, "error": error.what})
            continue
        documents.append(_document(image) | {"description": description})
        when = duration(time.time() - image.created)
        kind = str(_document(image)["kind"])
        rows.append((name, kind, image.digest[7:19], size(image.size), when, image.context.value, description))
    session.output.document({"directory": str(store.directory), "images": documents})
    if rows:
        session.output.show(
            table(("name", "kind", "digest", "size", "age", "context", "description"), rows, right=("size", "age"))
        )
    else:
        session.output.show(f"No images in {store.directory}; `gridtide image build thin --recipe thin` makes one")


def show(session: Session, name: Name, directory: Where = None) -> None:
    """Show all that is recorded of an image: recipe, packages, files, digests."""
    store = _store(directory)
    document = {"kind": "disk", **store.manifest(name), "name": name, "in_use": store.users(name)}
    session.output.document(document)
    origin = document["origin"]
    packages = origin.get("packages", {})
    lines = [
        f"{name}: {document['description']}",
        f"digest    {document['digest']}",
        f"made      {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(document['created']))}",
        f"kind      {document['kind']}",
        *([f"disk      {size(document['disk_size'])} for the machine"] if "disk_size" in document else []),
        f"context   {document['context']}",
        f"memory    at least {document['minimum_memory']} MiB",
        f"in use    {'yes' if document['in_use'] else 'no'}",
        *(f"file      {file}: {size(entry['size'])}, {entry['sha256']}" for file, entry in document["files"].items()),
        *([f"packages  {', '.join(f'{key} {value}' for key, value in packages.items())}"] if packages else []),
        *([f"source    {origin['source']}"] if "source" in origin else []),
        *(["recipe", origin["recipe"].rstrip()] if "recipe" in origin else []),
    ]
    session.output.show("\n".join(lines))


def verify(
    session: Session,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Images; else all.")] = None,
    directory: Where = None,
) -> None:
    """Read every byte of images and compare their digests."""
    store = _store(directory)
    damaged: list[Json] = []
    chosen = names or store.names()
    with _bar(session, "verifying") as progress:
        for name in chosen:
            try:
                store.verify(name, progress)
            except ImageError as error:
                damaged.append({"name": name, "error": error.what, "remedy": error.remedy})
    session.output.document({"verified": len(chosen) - len(damaged), "damaged": damaged})
    for one in damaged:
        if isinstance(one, dict):
            session.output.show(f"{one['error']} ({one['remedy']})")
    if damaged:
        raise Failed(f"{number(len(damaged), 'image')} damaged")
    session.output.show(f"{number(len(chosen), 'image')} whole")


def remove(
    session: Session,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also while a machine runs from it. Asks first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    directory: Where = None,
) -> None:
    """Remove an image. Refused while a machine runs from it."""
    if force and not yes:
        ask(f"Remove {name} even from under machines that run?")
    _store(directory).remove(name, force=force)
    session.output.document({"removed": name})
    session.output.show(f"Removed {name}")


def prune(session: Session, directory: Where = None) -> None:
    """Remove what no image's name means any more and no machine uses."""
    gone = _store(directory).prune()
    session.output.document({"removed": list(gone)})
    session.output.show(f"{number(len(gone), 'image')} removed")


def _store(directory: Path | None) -> ImageStore:
    from gridtide.images.store import ImageStore, default_directory

    if directory is not None and directory.exists() and not directory.is_dir():
        raise WrongUsage("is not a directory", where=str(directory))
    return ImageStore(directory or default_directory())


def _document(image: Image) -> dict[str, Json]:
    from gridtide.images.image import DiskImage, ImageKind

    return {
        "name": image.name,
        "kind": (ImageKind.DISK if isinstance(image, DiskImage) else ImageKind.TREE).value,
        "digest": image.digest,
        "created": image.created,
        "size": image.size,
        **({"disk_size": image.disk_size} if isinstance(image, DiskImage) else {}),
        "context": image.context.value,
        "minimum_memory": image.minimum_memory,
    }


@contextmanager
def _bar(session: Session, title: str) -> Iterator[Progress]:
    """A bar with the remaining time on a terminal, a line per step elsewhere."""
    if session.output.as_json or not sys.stderr.isatty():
        told: list[str] = []

        def note(what: str, _part: float) -> None:
            if told[-1:] != [what]:
                told.append(what)
                session.output.note(f"{title}: {what}")

        yield note
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=session.output.error_console, transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda what, part: bar.update(task, description=f"{title}: {what}", completed=part)
