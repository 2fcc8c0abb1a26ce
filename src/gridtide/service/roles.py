"""Who may use which route: the one table. ``docs/reference/roles.md`` shows it; a test walks all routes of the app."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from gridtide.store.ports import Role


class Audience(StrEnum):
    """Whom a route is for."""

    ANYBODY = "anybody"
    """No token is asked for."""
    MACHINE = "machine"
    """A machine with its join token."""
    WORKER = "worker"
    """A worker with its own token, for what concerns itself."""
    USERS = "users"
    """Everybody who has a user token; nothing is changed and no job's data is shown."""
    OWNERS = "owners"
    """Submitters for their own jobs; operators and admins for all."""
    SUBMITTERS = "submitters"
    OPERATORS = "operators"
    ADMINS = "admins"
    ALIEC2 = "aliec2"
    """Contextualisation scripts with a token of role worker; operators and admins."""


MAY: Final[Mapping[Audience, frozenset[Role]]] = MappingProxyType(
    {
        Audience.ANYBODY: frozenset(),
        Audience.MACHINE: frozenset(),
        Audience.WORKER: frozenset(),
        Audience.USERS: frozenset({Role.VIEWER, Role.SUBMITTER, Role.OPERATOR, Role.ADMIN}),
        Audience.OWNERS: frozenset({Role.SUBMITTER, Role.OPERATOR, Role.ADMIN}),
        Audience.SUBMITTERS: frozenset({Role.SUBMITTER, Role.ADMIN}),
        Audience.OPERATORS: frozenset({Role.OPERATOR, Role.ADMIN}),
        Audience.ADMINS: frozenset({Role.ADMIN}),
        Audience.ALIEC2: frozenset({Role.WORKER, Role.OPERATOR, Role.ADMIN}),
    }
)
"""The roles of *user* tokens that an audience takes in. Workers and machines have tokens of another kind."""

_A = Audience

ROUTES: Final[Mapping[str, Audience]] = MappingProxyType(
    {
        "GET /healthz": _A.ANYBODY,
        "GET /metrics": _A.USERS,
        "GET /v1/version": _A.USERS,
        "GET /v1/openapi.json": _A.USERS,
        # workers
        "POST /v1/worker/join": _A.MACHINE,
        "GET /v1/worker/context": _A.MACHINE,
        "POST /v1/worker/alive": _A.WORKER,
        "POST /v1/worker/done": _A.WORKER,
        "POST /v1/pilot/request": _A.WORKER,
        "GET /v1/pilot/jobs/{job}/inputs/{name:path}": _A.WORKER,
        "POST /v1/pilot/jobs/{job}/log": _A.WORKER,
        "PUT /v1/pilot/jobs/{job}/outputs/{name:path}": _A.WORKER,
        "POST /v1/pilot/jobs/{job}/finished": _A.WORKER,
        # jobs
        "PUT /v1/files/{digest}": _A.SUBMITTERS,
        "POST /v1/files/missing": _A.SUBMITTERS,
        "POST /v1/submissions": _A.SUBMITTERS,
        "GET /v1/submissions": _A.USERS,
        "GET /v1/submissions/{number}": _A.USERS,
        "GET /v1/jobs": _A.USERS,
        "GET /v1/jobs/{job}": _A.USERS,
        "POST /v1/jobs/cancel": _A.OWNERS,
        "GET /v1/jobs/{job}/log": _A.OWNERS,
        "GET /v1/jobs/{job}/outputs": _A.OWNERS,
        "GET /v1/jobs/{job}/outputs/{name:path}": _A.OWNERS,
        # the fleet
        "GET /v1/status": _A.USERS,
        "GET /v1/groups": _A.USERS,
        "GET /v1/groups/{name}/eta": _A.USERS,
        "GET /v1/groups/{name}/rollout": _A.USERS,
        "POST /v1/groups/{name}/rollout": _A.OPERATORS,
        "GET /v1/workers": _A.USERS,
        "GET /v1/workers/{worker}": _A.USERS,
        "GET /v1/workers/{worker}/console": _A.OPERATORS,
        "GET /v1/queues": _A.USERS,
        "GET /v1/clouds": _A.USERS,
        "GET /v1/plan": _A.USERS,
        "GET /v1/explain/{subject:path}": _A.USERS,
        "GET /v1/events": _A.USERS,
        "POST /v1/groups/{name}/scale": _A.OPERATORS,
        "POST /v1/groups/{name}/resume": _A.OPERATORS,
        "POST /v1/groups/{name}/suspend": _A.OPERATORS,
        "POST /v1/workers/drain": _A.OPERATORS,
        "POST /v1/workers/undrain": _A.OPERATORS,
        "POST /v1/site/close": _A.OPERATORS,
        "POST /v1/site/reload": _A.OPERATORS,
        # tokens
        "POST /v1/tokens": _A.ADMINS,
        "GET /v1/tokens": _A.ADMINS,
        "DELETE /v1/tokens/{token}": _A.ADMINS,
        # AliEC2's own three, when they are switched on
        "POST /spawn": _A.ALIEC2,
        "GET /alive/{worker}": _A.ALIEC2,
        "GET /done/{worker}": _A.ALIEC2,
    }
)
"""Route -> whom it is for. A route that is not here cannot be made: the app does not start."""
