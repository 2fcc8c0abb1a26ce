"""Every error that Gridtide raises on purpose.

    GridtideError                    what happened, where, what to do: one line for the user
    ├── SiteFileError                the site file is wrong (file, line, key)
    ├── JobDescriptionError          a job description is wrong (line, attribute)
    ├── InvalidRequest               a request to the service is wrong
    ├── AccessDenied                 no token, a bad token, or a role that may not do this
    ├── NotFound                     no worker, job, group ... of that name
    ├── Conflict                     right request, wrong moment (a job that has ended, a state that has moved on)
    ├── ImageError                   an image cannot be built, imported or used
    ├── PlugInError                  code of a package from elsewhere failed
    ├── ContextError                 what a machine shall be told is wrong (file, line), or does not fit
    ├── StoreError                   the store did not do as told
    │   ├── StoreUnavailable         it did not answer; nothing was changed
    │   └── LeaseLost                another controller leads now; nothing was changed
    └── SourceError                  a queue or a cloud did not answer as it should
        ├── QueueError
        │   └── QueueNotReady        it works, but cannot say yet; with the time to ask again
        └── CloudError
            ├── NoCapacity           the zone is sold out
            ├── QuotaExceeded        with its scope
            ├── ImageNotFound        the image is not there
            ├── Throttled            with the time to wait, when the cloud says it
            ├── AuthenticationFailed credentials are wrong or have expired
            ├── LaunchRejected       the cloud calls the request itself wrong; repeating it is useless
            └── CloudUnavailable     anything else: refused connection, 5xx, time-out, nonsense

Drivers raise these and nothing else. ``str(error)`` is the one line that a user meets.
"""

from __future__ import annotations


class GridtideError(Exception):
    """What happened, where it happened, and what the reader can do about it.

    ``where`` and ``remedy`` may be left out when ``what`` says it all. No argument may hold a secret.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = " ".join(what.split())
        self.where = " ".join(where.split())
        self.remedy = " ".join(remedy.split())
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line} ({self.remedy})" if self.remedy else line


class SiteFileError(GridtideError):
    """The site file cannot be used; ``where`` names file, line and key."""


class JobDescriptionError(GridtideError):
    """A job description cannot be used; ``where`` names line and attribute."""


class InvalidRequest(GridtideError):
    """A request to the service is malformed."""


class AccessDenied(GridtideError):
    """The caller may not do this."""


class NotFound(GridtideError):
    """Nothing of that name exists."""


class Conflict(GridtideError):
    """The request makes sense, but not in the present state."""


class ImageError(GridtideError):
    """An image cannot be built, imported, verified or used."""


class PlugInError(GridtideError):
    """Code of a package from elsewhere raised something of its own; ``what`` is that."""


class ContextError(GridtideError):
    """A context cannot be rendered; ``where`` names layer, file and line."""


class StoreError(GridtideError):
    """The store did not do as told."""


class StoreUnavailable(StoreError):
    """The store did not answer; nothing was changed."""


class LeaseLost(StoreError):
    """This controller does not lead any more; nothing was changed."""


class SourceError(GridtideError):
    """A queue or a cloud did not answer as it should."""


class QueueError(SourceError):
    """A queue could not be read, or did not take an order."""


class QueueNotReady(QueueError):
    """The queue works, but cannot say yet what is asked, e.g. just after its start. ``ask_again`` is in seconds."""

    def __init__(self, what: str, *, ask_again: float, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.ask_again = ask_again


class CloudError(SourceError):
    """Any answer of a cloud that is not the one hoped for."""


class NoCapacity(CloudError):
    """The cloud has no room for this shape in this zone now."""


class QuotaExceeded(CloudError):
    """The tenant's quota is used up; ``scope`` says which one ("cores", "machines", ...)."""

    def __init__(self, what: str, *, scope: str, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.scope = scope


class ImageNotFound(CloudError):
    """The image named by the group does not exist in this cloud."""


class Throttled(CloudError):
    """Too many calls; ``retry_after`` is in seconds, None when the cloud does not say."""

    def __init__(self, what: str, *, retry_after: float | None = None, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.retry_after = retry_after


class AuthenticationFailed(CloudError):
    """The credentials are wrong, missing or expired."""


class LaunchRejected(CloudError):
    """The cloud calls the request itself invalid: repeating it cannot help."""


class NotSent(CloudError):
    """The cloud was not called: the controller itself was held up until it was too late for it."""


class CloudUnavailable(CloudError):
    """The cloud could not be reached, answered 5xx, timed out or sent nonsense."""
