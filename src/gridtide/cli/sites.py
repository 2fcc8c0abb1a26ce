"""Commands around the site file: ``init check schema version``."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from gridtide import __version__
from gridtide.cli.client import Client
from gridtide.cli.command import Session, command
from gridtide.cli.human import number
from gridtide.cli.locate import Where
from gridtide.cli.output import table
from gridtide.cli.problems import Failed, NoService, WrongUsage
from gridtide.clouds.protocol import Finding, Level
from gridtide.errors import AccessDenied, Conflict, GridtideError, SiteFileError
from gridtide.store.ports import Json

_MARKS: Final = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.ERROR: ("error", "red")}
_LONGEST_NAME: Final = 20
"""Characters of a site's name (gridtide.site.base)."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    command(app, "init", connects=False, panel="The site")(init)
    command(app, "check", connects=False, panel="The site")(check)
    command(app, "schema", connects=False, panel="The site")(schema)
    command(app, "version", panel="The site")(version)


def init(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="The site file to make, or a directory for it.")
    ] = Path("site.toml"),
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The site's name; else this machine's.", show_default=False)
    ] = None,
) -> None:
    """Make a small site file that works as it is: the built-in queue, workers as local processes."""
    from gridtide.site.starter import starter

    if file.is_dir():
        file /= "site.toml"
    text = starter(_own_name() if name is None else name)
    try:
        with file.open("x", encoding="utf-8") as sink:
            sink.write(text)
    except FileExistsError:
        raise Conflict("is there already and is left as it is", where=str(file)) from None
    except OSError as error:
        raise WrongUsage(f"cannot be made: {error.strerror}", where=str(file)) from None
    session.output.document({"file": str(file)})
    session.output.show(f"Made {file}. Next: `gridtide check {file}`, then `gridtide up {file}`")


def check(
    session: Session,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The site file.", show_default=False)] = None,
) -> None:
    """Check the site file, then reach for every queue and cloud, credentials, images and the way back for workers."""
    from gridtide.runtime import check_site
    from gridtide.site.loader import problems

    path = Where(site=file).site_file()
    wrong = problems(path)
    if wrong:
        findings = [Finding(one.where, Level.ERROR, one.what, one.remedy) for one in wrong]
        _report(session, path, findings)
        raise SiteFileError(f"{number(len(wrong), 'problem')} in the site file", where=str(path))
    findings = list(asyncio.run(check_site(path)))
    _report(session, path, findings)
    errors = sum(finding.level is Level.ERROR for finding in findings)
    if errors:
        raise Failed(f"{number(errors, 'error')} found", where=str(path))
    session.output.show(f"{path}: no errors")


def schema(session: Session) -> None:
    """Write the JSON schema of the site file, for editors."""
    from gridtide.site.schema import schema as site_schema

    text = json.dumps(site_schema(), indent=2, ensure_ascii=False)
    session.output.document(json.loads(text))
    session.output.show(text)


def version(session: Session) -> None:
    """Show the version of this command, and of the service when one answers."""
    service, url = _service_version(session)
    session.output.document({"command": __version__, "service": service, "url": url})
    session.output.show(f"gridtide {__version__}" + (f", service {service} at {url}" if service else ""))


def _service_version(session: Session) -> tuple[str | None, str | None]:
    """None when nobody answers or may say: this command must not fail for that, unless the user named a service."""
    try:
        with Client(session.where.address()) as client:
            answer = client.get("/v1/version")
            said = answer.get("version") if isinstance(answer, dict) else None
            return (said if isinstance(said, str) else None), client.url
    except (NoService, AccessDenied):
        if session.where.url is not None:
            raise
    except GridtideError:
        if session.where.url is not None or session.where.site is not None:
            raise
    return None, None


def _own_name() -> str:
    """This machine's name, as far as a site may be called so."""
    plain = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().partition(".")[0].lower())
    return plain.lstrip("-0123456789")[:_LONGEST_NAME].strip("-") or "site"


def _report(session: Session, path: Path, findings: Sequence[Finding]) -> None:
    from rich.text import Text

    documents: list[Json] = []
    rows = []
    for finding in findings:
        word, style = _MARKS[finding.level]
        rows.append((Text(word, style=style), finding.subject, finding.text, finding.remedy))
        documents.append(
            {
                "subject": finding.subject,
                "level": finding.level.value,
                "text": finding.text,
                "remedy": finding.remedy,
            }
        )
    session.output.document({"file": str(path), "findings": documents})
    if rows:
        session.output.show(table(("", "subject", "finding", "what to do"), rows))
