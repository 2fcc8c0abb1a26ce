"""The built-in task queue: :class:`gridtide.pilot.protocol.Pilot` over a database and a storage directory."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from sqlalchemy import Connection

from gridtide.clock import Clock
from gridtide.errors import InvalidRequest, NotFound, StoreError
from gridtide.model.demand import Attribute, Demand, Nodes, Offer
from gridtide.model.ids import GroupName, WorkerId
from gridtide.pilot import cancelling, hearing, jdl, making, nodes, records, sql
from gridtide.pilot import demand as waiting_work
from gridtide.pilot.contacts import Contacts, Listed
from gridtide.pilot.description import to_json
from gridtide.pilot.endings import is_declared
from gridtide.pilot.files import MAXIMUM_OUTPUTS, AttemptPlace, Files
from gridtide.pilot.matching import Verdicts, checked_host
from gridtide.pilot.nodes import Listing
from gridtide.pilot.protocol import (
    AttemptEnd,
    InputFile,
    JobAnswer,
    JobId,
    JobRecord,
    JobRequest,
    JobState,
    Order,
    OutputFile,
    SubmissionRecord,
)
from gridtide.pilot.scheduling import Ask, Scheduler
from gridtide.pilot.standing import NOTHING, Said, StandingAnswers, Told
from gridtide.pilot.waiting import WaitingRoom
from gridtide.store.database import Database

T = TypeVar("T")
P = ParamSpec("P")

_KEEP_CONTACTS: Final = 5.0
"""Seconds between writing contacts down. They are for people: after a restart every lease begins anew anyway."""
_LEAST_PAUSE: Final = 20.0
"""Seconds between two sweeps that are no pause yet, however short the lease. Less than a few times the pace of sweeps:
a busy service takes itself for one that was stopped, and notices nobody's silence."""
_KEEP_UPLOADS: Final = 86400.0
"""Seconds after which an upload that was never completed is deleted."""
_MOST_LISTED: Final = 10_000
_LONGEST_NUMBER: Final = 200
_LONGEST_PAGE: Final = 10_000
_LONGEST_READ: Final = 16 * 2**20
_LONGEST_WAIT: Final = 300.0


class PilotQueue:
    """See the protocol for what each operation means.

    ``maximum_losses``: a job that has lost its worker so often fails. ``lease``: seconds of silence, while this object
    lives, after which a worker's attempts are given up. ``wake`` is called with a reason when the controller may want
    to look: work came or went, or a draining worker became empty. ``alone`` tells whether nobody else can have changed
    the tables: while it does not hold, every heartbeat asks them.
    """

    def __init__(
        self,
        database: Database,
        directory: Path,
        clock: Clock,
        *,
        maximum_losses: int = 3,
        lease: float = 600.0,
        wake: Callable[[str], None],
        alone: Callable[[], bool] = lambda: True,
    ) -> None:
        self._database = database
        self._alone = alone
        self._clock = clock
        self._files = Files(directory)
        self._maximum_losses = maximum_losses
        self._lease = lease
        self._wake_controller = wake
        self._contacts = Contacts(clock, lease)
        self._standing = StandingAnswers()
        self._verdicts = Verdicts()
        self._descriptions = sql.Descriptions()
        self._book = nodes.NodeBook()
        self._looking = asyncio.Lock()
        self._scheduler = Scheduler(self._verdicts, self._descriptions)
        self._room = WaitingRoom(self._assign)
        self._swept = clock.now()
        self._contacts_kept = clock.now()
        self._uploads_swept = 0.0

    # --- the queue's side

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        """Waiting jobs by what they look like from outside."""
        rows = await self._database.read(waiting_work.waiting)
        return waiting_work.demand(rows, offers, self._verdicts)

    async def nodes(self) -> Nodes:
        """Admitted workers with what runs on them."""
        listing = await self._listing()
        silent = self._contacts.silent(listing.known.keys())
        if not silent:
            return listing.nodes
        return tuple(nodes.unavailable(node) if node.worker in silent else node for node in listing.nodes)

    async def _listing(self) -> Listing:
        """One look at a time: each reads only what has changed since the one before."""
        book = self._book
        async with self._looking:
            wanted = book.wanted(self._clock.now(), alone=self._alone())
            if wanted != frozenset():
                before = book.listing
                try:
                    book.listing = await self._database.read(lambda connection: nodes.read(connection, wanted, before))
                except BaseException:
                    book.failed()
                    raise
            return book.listing

    async def admit(
        self, worker: WorkerId, group: GroupName, host: Mapping[str, Attribute], *, single_use: bool
    ) -> None:
        """From now on the worker may ask for jobs. InvalidRequest when the machine's ad is unsound."""
        sound = checked_host(host)
        now = self._clock.now()

        def ended(new: bool | None) -> None:
            self._ended([worker], [worker])
            if new:  # nothing is known of it that a look could find
                self._standing.keep(worker, self._standing.look(worker), NOTHING, (Order.CONTINUE, ()))

        self._book.begun([worker])
        await self._database.write(
            lambda connection: nodes.admit(connection, worker, group, sound, single_use=single_use, now=now), ended
        )
        self._contacts.note(worker)
        self._room.wake()

    async def set_draining(self, workers: Sequence[WorkerId], draining: bool) -> Sequence[WorkerId]:
        """Returns those that took it."""
        taken = await self._change(workers, lambda connection: nodes.set_draining(connection, workers, draining))
        self._room.wake()
        return taken

    async def remove(self, workers: Sequence[WorkerId]) -> None:
        """Their machines are gone."""
        now = self._clock.now()

        def work(connection: Connection) -> int:
            waiting = 0
            for attempt in sql.running(connection, workers):
                why = f"the machine of worker {attempt.worker} is gone"
                waiting += sql.lose(connection, [attempt], why, now, self._maximum_losses)
            nodes.forget(connection, workers)
            return waiting

        requeued = await self._change(workers, work)
        self._contacts.drop(workers)
        self._room.wake()
        if requeued:
            self._wake_controller(f"{requeued} jobs lost their worker")

    async def _change(self, workers: Sequence[WorkerId], work: Callable[[Connection], T]) -> T:
        """A write that may change what these workers are told."""
        self._book.begun(workers)
        return await self._database.write(work, lambda _: self._ended(workers, workers))

    def _ended(self, workers: Collection[WorkerId], changed: Collection[WorkerId]) -> None:
        """A write has ended: what is remembered of those that it may have changed may not be so any more."""
        self._standing.fall(changed)
        self._book.ended(workers, changed)

    # --- workers

    async def request(self, worker: WorkerId, request: JobRequest, *, wait: float) -> JobAnswer:
        """Match a job to the worker; without one, wait for it."""
        if not 0 < len(request.number) <= _LONGEST_NUMBER or "\0" in request.number:
            raise InvalidRequest(f"the number of a request has 1 to {_LONGEST_NUMBER} characters")
        self._contacts.note(worker)
        answer = await self._room.ask(Ask(worker, request), min(wait, _LONGEST_WAIT))
        self._contacts.note(worker)
        if answer.order is Order.STOP:
            self._wake_controller(f"worker {worker} is drained")
        return answer

    async def _assign(self, asks: Sequence[Ask]) -> Sequence[JobAnswer]:
        now = self._clock.now()

        def ended(answers: Sequence[JobAnswer] | None) -> None:
            nothing_known = [None] * len(asks)
            pairs = zip(asks, nothing_known if answers is None else answers, strict=True)
            changed = [ask.worker for ask, answer in pairs if answer is None or answer.final]
            self._ended([ask.worker for ask in asks], changed)

        self._book.begun([ask.worker for ask in asks])
        # Hundreds may wait for this one write. Behind all that is written meanwhile they would wait for each other.
        return await self._database.write(
            lambda connection: self._scheduler.assign(connection, asks, now), ended, urgent=True
        )

    def heard(self, worker: WorkerId, running: Sequence[Listed], *, draining: bool) -> Told | None:
        """Contact, and the answer when it is known; None, and nothing is noted, when :meth:`alive` must find it."""
        told = self._standing.to(worker, Said(tuple(running), draining)) if self._alone() else None
        if told is not None:
            # As when this was answered before: nothing was missing, and no drain of its own will was new.
            self._contacts.note(worker)
            self._contacts.obeys(worker)
            self._contacts.missing(worker, ())
        return told

    async def alive(self, worker: WorkerId, running: Sequence[Listed], *, draining: bool) -> Told:
        """Contact. Returns the order, and the jobs of ``running`` that it must end."""
        if len(running) > _MOST_LISTED:
            raise InvalidRequest(f"a worker lists {len(running)} jobs, {_MOST_LISTED} are the most")
        known = self.heard(worker, running, draining=draining)
        if known is not None:
            return known
        self._contacts.note(worker)
        look = self._standing.look(worker)
        heard = await self._database.read(lambda connection: hearing.hear(connection, worker, running, insists=False))
        ordered = heard.worker is None or heard.worker.draining
        insists = self._contacts.insists(worker, draining=draining and not ordered)
        if insists or not heard.settled:
            now = self._clock.now()
            first = heard
            heard = await self._change(
                [worker],
                lambda connection: hearing.settle(connection, worker, running, first, insists=insists, now=now),
            )
            self._wake_controller(f"worker {worker} has changed")
        else:
            again = heard.worker is not None and not heard.missing and (ordered or not draining)
            told = (heard.order, heard.cancel) if again else None
            self._standing.keep(worker, look, Said(tuple(running), draining), told)
        self._contacts.missing(worker, heard.missing)
        return heard.order, heard.cancel

    async def left(self, worker: WorkerId) -> None:
        """It runs nothing, asks for nothing more and shuts down: what it was given and never ended waits again."""
        now = self._clock.now()

        def work(connection: Connection) -> int:
            lost = sql.running(connection, [worker])
            nodes.set_final(connection, worker)
            return sql.lose(connection, lost, f"worker {worker} left without it", now, self._maximum_losses)

        requeued = await self._change([worker], work)
        if requeued:
            self._room.wake()
        self._wake_controller(f"worker {worker} has left")

    async def open_input(self, worker: WorkerId, job: JobId, attempt: int, name: str) -> Path:
        """Where an input of a job that runs on this worker lies."""

        def work(connection: Connection) -> str:
            found = sql.wanted_attempt(connection, worker, job, attempt)
            for file in self._descriptions.get(connection, found.place.submission).inputs:
                if file.name == name:
                    return file.digest
            raise NotFound(f"job {job} has no input {name[:60]!r}")

        self._contacts.note(worker)
        return self._files.input(await self._database.read(work))

    async def append_log(
        self, worker: WorkerId, job: JobId, attempt: int, stream: str, offset: int, data: bytes
    ) -> int:
        """Keep output; returns the length now kept."""
        place = await self._wanted(worker, job, attempt)
        return await _on_disk(self._files.append_log, place, stream, offset, data)

    async def _wanted(self, worker: WorkerId, job: JobId, attempt: int) -> AttemptPlace:
        self._contacts.note(worker)
        found = await self._database.read(lambda connection: sql.wanted_attempt(connection, worker, job, attempt))
        return found.place

    async def output_path(self, worker: WorkerId, job: JobId, attempt: int, name: str) -> Path:
        """Where to write an uploaded output. InvalidRequest when the job did not declare it."""
        place = await self._output_place(worker, job, attempt, name)
        return await _on_disk(self._files.new_output, place)

    async def _output_place(self, worker: WorkerId, job: JobId, attempt: int, name: str) -> AttemptPlace:
        def work(connection: Connection) -> AttemptPlace:
            found = sql.wanted_attempt(connection, worker, job, attempt)
            self._files.output_path(found.place, name)
            declared = self._descriptions.get(connection, found.place.submission).description
            if not is_declared(declared.outputs_of(found.place.index), name):
                raise InvalidRequest(f"job {job} did not declare an output {name!r}")
            known = sql.kept_outputs(connection, found)
            if name not in known and len(known) >= MAXIMUM_OUTPUTS:
                raise InvalidRequest(f"job {job} has {MAXIMUM_OUTPUTS} outputs already", remedy="pack them into one")
            return found.place

        self._contacts.note(worker)
        return await self._database.read(work)

    async def keep_output(
        self, worker: WorkerId, job: JobId, attempt: int, name: str, written: Path, digest: str
    ) -> None:
        """Move a completely uploaded output to its place."""
        place = await self._output_place(worker, job, attempt, name)
        size = await _on_disk(self._files.keep_output, place, name, written, digest)

        def work(connection: Connection) -> None:
            found = sql.wanted_attempt(connection, worker, job, attempt)
            sql.keep_output(connection, found, name, size, digest)

        await self._database.write(work)

    async def finished(self, worker: WorkerId, end: AttemptEnd) -> bool:
        """Record the end of an attempt. False when its result is not wanted any more."""
        self._contacts.note(worker)
        now = self._clock.now()
        ended = await self._change(
            [worker],
            lambda connection: sql.finish(connection, worker, end, self._descriptions, now, self._maximum_losses),
        )
        if ended.requeued:
            self._room.wake()
            self._wake_controller(f"job {end.job} waits again")
        return ended.accepted

    # --- users

    async def has_files(self, digests: Sequence[str]) -> Sequence[str]:
        """Which of these are stored already."""
        return await _on_disk(lambda: [digest for digest in digests if self._files.has(digest)])

    async def file_path(self) -> Path:
        """A new temporary file to write an upload to."""
        return await _on_disk(self._files.new_upload)

    async def keep_file(self, written: Path, digest: str) -> None:
        """Make an upload known under its digest."""
        await _on_disk(self._files.keep_input, written, digest)

    async def submit(self, user: str, description: str, files: Mapping[str, str]) -> SubmissionRecord:
        """Parse a JDL text and make its jobs."""
        parsed = await asyncio.to_thread(jdl.parse, description)
        inputs = await _on_disk(self._inputs, parsed.inputs, parsed.executable, files)
        kept = to_json(parsed, inputs)
        now = self._clock.now()

        def work(connection: Connection) -> SubmissionRecord:
            number = making.make_submission(connection, user, parsed, kept, now)
            return records.submission(connection, number)

        made = await self._database.write(work)
        self._room.wake()
        self._wake_controller(f"submission {made.number}: {parsed.size} jobs")
        return made

    def _inputs(self, names: Sequence[str], executable: str, files: Mapping[str, str]) -> tuple[InputFile, ...]:
        missing = [name for name in names if name not in files]
        if missing:
            raise InvalidRequest(f"the description names the file {missing[0]!r}, which was not sent along")
        return tuple(
            InputFile(name, files[name], self._files.size(files[name]), executable=name == executable) for name in names
        )

    async def submissions(self, *, user: str | None, limit: int) -> Sequence[SubmissionRecord]:
        """Newest first."""
        page = _page(limit)
        return await self._database.read(lambda connection: records.submission_page(connection, user, page))

    async def submission(self, number: int) -> SubmissionRecord:
        """NotFound when there is none."""
        return await self._database.read(lambda connection: records.submission(connection, number))

    async def jobs(
        self,
        *,
        submission: int | None = None,
        state: JobState | None = None,
        user: str | None = None,
        after: JobId | None = None,
        limit: int = 200,
    ) -> Sequence[JobRecord]:
        """In order of submission and index."""
        page = _page(limit)
        return await self._database.read(
            lambda connection: records.job_page(
                connection, submission=submission, state=state, user=user, after=after, limit=page
            )
        )

    async def job(self, job: JobId) -> JobRecord:
        """NotFound when there is none."""
        return await self._database.read(lambda connection: records.job(connection, job))

    async def counts(self) -> Mapping[JobState, int]:
        """Over all jobs."""
        return await self._database.read(records.counts)

    async def cancel(self, *, jobs: Sequence[JobId], submission: int | None, user: str | None) -> int:
        """Cancel waiting and running jobs. Returns how many."""
        now = self._clock.now()

        def work(connection: Connection) -> int:
            number = cancelling.cancel_jobs(connection, jobs, user, now)
            if submission is not None:
                number += cancelling.cancel_submission(connection, submission, user, now)
            return number

        # Whose jobs they were, only the tables know.
        number = await self._database.write(work, lambda number: None if number == 0 else self._standing.fall_all())
        if number:
            self._wake_controller(f"{number} jobs cancelled")
        return number

    async def read_log(self, job: JobId, stream: str, *, offset: int, limit: int) -> bytes:
        """Of the last attempt."""
        record = await self.job(job)
        place = AttemptPlace(*sql.parse_job_id(job), record.attempt)
        return await _on_disk(self._files.read_log, place, stream, offset, min(limit, _LONGEST_READ))

    async def outputs(self, job: JobId) -> Sequence[OutputFile]:
        """Kept results of a job that ended."""
        return await self._database.read(lambda connection: records.output_list(connection, job))

    async def open_output(self, job: JobId, name: str) -> Path:
        """NotFound when there is none."""
        if name not in {kept.name for kept in await self.outputs(job)}:
            raise NotFound(f"job {job} has no output {name[:60]!r}")
        record = await self.job(job)
        return self._files.output(AttemptPlace(*sql.parse_job_id(job), record.attempt), name)

    # --- upkeep

    async def sweep(self) -> float | None:
        """Give up attempts of workers that are silent, or that have forgotten them. Returns when to look again.

        To be called far more often than once in half a lease: if it is not, this process was stopped or its host slept,
        and who could not reach it meanwhile was not silent.
        """
        self._notice_pause()
        busy = (await self._listing()).busy
        now = self._notice_pause()
        silent = self._contacts.silent(busy)
        forgotten = self._contacts.forgotten()
        if silent or forgotten:
            await self._give_up(silent, forgotten, now)
        if now - self._contacts_kept >= _KEEP_CONTACTS:
            self._contacts_kept = now
            if contacts := self._contacts.unsaved():
                await self._database.write(lambda connection: nodes.keep_contacts(connection, contacts))
        if now - self._uploads_swept >= _KEEP_UPLOADS:
            self._uploads_swept = now
            await _on_disk(self._files.discard_uploads, now - _KEEP_UPLOADS)
        return max(min(self._contacts.next_end(busy - silent), now + _KEEP_CONTACTS), now + 0.1)

    def _notice_pause(self) -> float:
        """Returns the present time."""
        now = self._clock.now()
        if now - self._swept > max(self._lease / 2, _LEAST_PAUSE):
            self._contacts.listen_anew()
        self._swept = now
        return now

    async def _give_up(
        self, silent: Collection[WorkerId], forgotten: Mapping[WorkerId, set[Listed]], now: float
    ) -> None:
        def work(connection: Connection) -> int:
            waiting = 0
            for attempt in sql.running(connection, [*silent, *forgotten]):
                listed = sql.job_id(attempt.place.submission, attempt.place.index), attempt.place.attempt
                if attempt.worker in silent:
                    why = f"worker {attempt.worker} silent for {self._lease:g} s"
                elif listed in forgotten.get(attempt.worker, ()):
                    why = f"worker {attempt.worker} does not know of it"
                else:
                    continue
                waiting += sql.lose(connection, [attempt], why, now, self._maximum_losses)
            return waiting

        requeued = await self._change([*silent, *forgotten], work)
        self._room.wake()
        self._wake_controller(f"{requeued} jobs lost their worker")


def _page(limit: int) -> int:
    if not 0 < limit <= _LONGEST_PAGE:
        raise InvalidRequest(f"a page has 1 to {_LONGEST_PAGE} entries", remedy="ask for the next page with after=")
    return limit


async def _on_disk(work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Run it on a thread; what the disk refuses is a StoreError."""
    try:
        return await asyncio.to_thread(functools.partial(work, *arguments, **keywords))
    except OSError as error:
        raise StoreError(
            f"the storage directory did not do as asked: {error.strerror or type(error).__name__}",
            remedy="check that its disk is not full and that it may be written",
        ) from error
