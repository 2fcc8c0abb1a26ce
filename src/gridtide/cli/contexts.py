"""``context``: what machines are told at boot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gridtide.cli.command import Session, command
from gridtide.cli.human import number
from gridtide.cli.locate import Where
from gridtide.errors import NotFound


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    context = typer.Typer(no_args_is_help=True, help="Look at what machines are told at boot.")
    command(context, "render", connects=False)(render)
    app.add_typer(context, name="context", rich_help_panel="The site")


def render(
    session: Session,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="A group of the site file.")],
    cloud: Annotated[
        str | None, typer.Option("--cloud", metavar="CLOUD", help="One of its clouds; else the first.")
    ] = None,
    fetched: Annotated[
        bool, typer.Option("--fetched", help="What it fetches with its join token because it did not fit.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option("--site", metavar="FILE", help="The site file (GRIDTIDE_SITE; else ./site.toml).")
    ] = None,
) -> None:
    """Show exactly what a machine of a group gets, its join token masked. Nothing is asked and nothing is started."""
    from gridtide.context.rendering import masked
    from gridtide.model.ids import CloudName, GroupName
    from gridtide.site.loader import load
    from gridtide.telling import EXAMPLE_TOKEN, example, tellings

    site = load(Where(site=file).site_file())
    name = GroupName(group)
    if name not in site.groups:
        raise NotFound(f"there is no group {group[:80]!r}", remedy=f"groups are {', '.join(sorted(site.groups))}")
    place = CloudName(cloud or site.groups[name].clouds[0])
    known = tellings(site, site.service.url_on(site.service.listen.port), None)
    _, data = example(site, known, name, place)
    telling = known[name, place]
    content = (data.fetched or b"") if fetched else data.content
    shown = masked(content, EXAMPLE_TOKEN)
    session.output.document(
        {
            "group": name,
            "cloud": place,
            "format": telling.format.value,
            "size": len(content),
            "limit": telling.limit,
            "fetched": None if data.fetched is None else len(data.fetched),
            "user_data": shown.decode("utf-8", "backslashreplace"),
        }
    )
    if session.output.as_json:
        return
    sys.stdout.write(shown.decode("utf-8", "backslashreplace").rstrip("\n") + "\n")
    most = "any size fits" if telling.limit is None else f"{telling.limit} fit"
    more = "" if data.fetched is None else f"; {number(len(data.fetched), 'byte')} are fetched with the join token"
    session.output.note(f"{telling.format.value}, {number(len(data.content), 'byte')}, {most}{more}")
