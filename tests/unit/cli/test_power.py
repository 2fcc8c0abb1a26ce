"""``slurm-resume`` and ``slurm-suspend``."""

from __future__ import annotations

import pytest

from gridtide.cli.exit_codes import ExitCode
from gridtide.store.ports import Json

from .conftest import Run
from .fake_service import Answer, FakeService, refuse


@pytest.mark.parametrize("what", ["resume", "suspend"])
def test_slurms_form_of_a_list_is_understood(ask: Run, service: FakeService, what: str) -> None:
    document: dict[str, Json] = {"group": "grid", "workers": {"n1": "grid-aaaaaaaa", "n2": "grid-bbbbbbbb"}}
    service.on("POST", f"/v1/groups/grid/{what}", Answer(document=document))
    said = ask(f"slurm-{what}", "n[1-2],n2", "--group", "grid")
    assert said.code == 0
    assert said.stdout.startswith("2 workers")
    assert len(said.stdout.splitlines()) == 1
    assert ask(f"slurm-{what}", "n[1-2]", "--group", "grid", "--json").document == document


def test_what_goes_wrong_is_one_line(ask: Run, service: FakeService) -> None:
    assert ask("slurm-resume", "n[1-", "--group", "grid").code == ExitCode.USAGE
    service.on("POST", "/v1/groups/grid/resume", refuse(409, "Conflict", "not resumed: n2: no room"))
    assert ask("slurm-resume", "n[1-2]", "--group", "grid").code == ExitCode.CONFLICT
