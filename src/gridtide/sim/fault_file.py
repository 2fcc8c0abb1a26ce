"""Faults as users write them: ``[[faults]]`` of a model file, ``--fault`` on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gridtide.errors import SiteFileError
from gridtide.model.ids import CloudName, ShapeName, Zone
from gridtide.sim.faults import HABITS, Dial, Fault, FaultName
from gridtide.site.base import SiteModel, written
from gridtide.site.units import Duration, Period, parse_duration, wrong


def _parse_step(value: object) -> float:
    """A duration, or one with a minus sign."""
    if isinstance(value, str) and value.strip().startswith("-"):
        return -parse_duration(value.strip()[1:].strip())
    return parse_duration(value)


Step = Annotated[float, BeforeValidator(_parse_step)]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class FaultSettings(SiteModel):
    """One fault that will strike."""

    name: FaultName = Field(description="Which one.")
    at: Duration | None = written(
        None, description="When, from the first submission. Left out: at a random moment of the workload."
    )
    every: Period | None = written(
        None, description="Again and again at random: the mean time from the end of one to the start of the next."
    )
    lasting: Period | None = Field(default=None, alias="for", description="How long.")
    cloud: str | None = written(None, description="Which cloud. Left out: all.")
    zone: str | None = written(None, description="Which zone of the cloud. Left out: all.")
    shape: str | None = written(None, description="Which shape. Left out: all.")
    share: Share | None = written(None, description="Which part, from 0 to 1.")
    by: Step | None = written(None, description="How much; for `clock-step` also backwards, with a minus sign.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """What may be set differs from fault to fault."""
        dials = {dial: getattr(self, "lasting" if dial is Dial.LASTING else dial) for dial in Dial}
        habit = HABITS[self.name]
        useless = [dial for dial, value in dials.items() if value is not None and dial not in habit.dials]
        if useless:
            may = ", ".join(sorted(habit.dials))
            raise wrong(f"fault {self.name} has no {useless[0].value!r}", f"it has: {may}, at, every")
        if self.by is not None and self.by < 0 and self.name is not FaultName.CLOCK_STEP:
            raise wrong("time does not run backwards here", f'for example "{-self.by:g} s"')
        return self

    def fault(self) -> Fault:
        """The plain value, with the fault's own habits for what is left out."""
        habit = HABITS[self.name]
        return Fault(
            self.name,
            self.at,
            self.every,
            lasting=habit.lasting if self.lasting is None else self.lasting,
            cloud=None if self.cloud is None else CloudName(self.cloud),
            zone=None if self.zone is None else Zone(self.zone),
            shape=None if self.shape is None else ShapeName(self.shape),
            share=habit.share if self.share is None else self.share,
            by=habit.by if self.by is None else self.by,
        )


def parse_fault(text: str) -> Fault:
    """``partition``, or ``partition=at 2 days, for 20 min, cloud burst``. SiteFileError when it makes no sense."""
    name, _, rest = text.partition("=")
    table: dict[str, object] = {"name": name.strip()}
    for part in filter(None, (each.strip() for each in rest.split(","))):
        key, _, value = part.partition(" ")
        table[key] = float(value) if key == Dial.SHARE and _is_number(value) else value.strip()
    try:
        return FaultSettings.model_validate(table).fault()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(each) for each in first["loc"])
        right = first.get("ctx", {}).get("right", "for example partition=at 2 days, for 20 min")
        what = f"there is no fault {name.strip()!r}" if key == "name" else f"{key}: {first['msg']}".lstrip(": ")
        remedy = f"there are: {', '.join(FaultName)}" if key == "name" else str(right)
        raise SiteFileError(what, where=f"--fault {text}", remedy=remedy) from None


def check_faults(faults: Iterable[Fault], clouds: Iterable[CloudName]) -> None:
    """SiteFileError when one names a cloud that there is not."""
    known = sorted(clouds)
    for fault in faults:
        if fault.cloud is not None and fault.cloud not in known:
            raise SiteFileError(
                f"there is no cloud {fault.cloud!r}",
                where=f"fault {fault.name}",
                remedy=f"there are: {', '.join(known)}",
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
