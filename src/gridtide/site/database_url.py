"""The database's URL: checked, made absolute, and kept secret.

SQLAlchemy is imported only where its own reading of a URL is needed: it takes longer to import than all else that a
command of the user's needs to find a site's state directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr, ValidationInfo

from gridtide.errors import SiteFileError
from gridtide.site.base import Place
from gridtide.site.hints import suggestion
from gridtide.site.units import wrong

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

DEFAULT_URL: Final = "sqlite:///{state}/gridtide.sqlite"
"""Filled in by :func:`read_database_url`."""

_POSTGRESQL: Final = "postgresql+psycopg"
_EXAMPLE: Final = f'for example "{_POSTGRESQL}://gridtide@db.example.org/gridtide"'


def read_database_url(value: object, information: ValidationInfo) -> SecretStr:
    """A URL that the store can use. PydanticCustomError, which never quotes the URL: it may hold a password."""
    place: Place | None = information.context
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise wrong("must be text", _EXAMPLE)
    if value == DEFAULT_URL:
        if place is None:
            raise wrong("has no default away from a site file", _EXAMPLE)
        return _of_file(place.state / "gridtide.sqlite")
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise wrong("is not a database URL", _EXAMPLE) from None
    if url.drivername == "sqlite":
        return _rendered(_absolute(url, place))
    if url.drivername != _POSTGRESQL:
        known = ["sqlite", _POSTGRESQL]
        near = f"write {_POSTGRESQL}://" if url.drivername.startswith("postgres") else suggestion(url.drivername, known)
        raise wrong(f"{url.drivername[:40]!r} is not a database that Gridtide uses", near)
    if not url.database:
        raise wrong("names no database", _EXAMPLE)
    return _rendered(url)


def _of_file(path: Path) -> SecretStr:
    if _PLAIN.fullmatch(str(path)):
        return SecretStr(f"sqlite:///{path}")
    from sqlalchemy.engine import URL

    return _rendered(URL.create("sqlite", database=str(path)))


# Paths that stand in a URL as they are.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./-]+", re.ASCII)


def _absolute(url: URL, place: Place | None) -> URL:
    if url.host or url.username or not url.database or url.database.startswith((":", "file:")):
        raise wrong("an SQLite URL names a file, and nothing is kept in memory", 'for example "sqlite:///site.sqlite"')
    directory = place.directory if place is not None else Path.cwd()
    return url.set(database=os.path.normpath(directory / Path(url.database).expanduser()))


def _rendered(url: URL) -> SecretStr:
    return SecretStr(url.render_as_string(hide_password=False))


def has_password(url: SecretStr) -> bool:
    """Whether the URL itself holds a password."""
    from sqlalchemy.engine import make_url

    return make_url(url.get_secret_value()).password is not None


def connection_url(url: str, password_file: Path | None) -> str:
    """``url`` with the password of the file. SiteFileError when it cannot be read or holds none."""
    if password_file is None:
        return url
    try:
        password = password_file.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise SiteFileError(f"cannot be read: {reason}", where=str(password_file), remedy=_PASSWORD) from None
    if not password or "\n" in password:
        raise SiteFileError("does not hold one line", where=str(password_file), remedy=_PASSWORD)
    from sqlalchemy.engine import make_url

    return make_url(url).set(password=password).render_as_string(hide_password=False)


_PASSWORD: Final = "it must hold the database's password and nothing else"  # noqa: S105  (words about one)
