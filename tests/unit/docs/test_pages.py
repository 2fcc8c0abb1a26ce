"""The documentation against itself and against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gridtide.model.reasons import Cause

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def links(page: Path) -> list[str]:
    """Targets of the page's links to files."""
    return [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = [target for target in links(page) if not (page.parent / target).exists()]
    assert missing == []


def test_every_page_is_in_the_index() -> None:
    listed = {(DOCS / target).resolve() for target in links(DOCS / "index.md")}
    listed |= {each for group in list(listed) if group.is_dir() for each in group.rglob("*.md")}
    assert {page for page in DOCS.rglob("*.md") if page.name != "index.md"} - listed == set()


def test_every_reason_is_explained_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", (DOCS / "reference" / "reasons.md").read_text(encoding="utf-8"), re.M)
    assert rows == [cause.value for cause in Cause]


def test_the_makefile_has_the_commands_that_the_readme_names() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"demo", "test"} <= named <= targets


def test_every_library_has_its_reason() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for group in project["optional-dependencies"].values() for each in group),
    ]
    page = (DOCS / "reference" / "libraries.md").read_text(encoding="utf-8").lower()
    assert [name for each in wanted if (name := re.split(r"[\[>=<]", each)[0].lower()) not in page] == []


def test_nothing_of_any_one_machine_is_in_the_project() -> None:
    registry = re.compile(r"https?://[a-z.]*(?:" + "debian|pypi|npmjs" + r")\.")
    for path in [*PAGES, ROOT / "requirements.lock", ROOT / "Makefile", *(ROOT / "tools").iterdir()]:
        assert not registry.search(path.read_text(encoding="utf-8")), path
