"""Lists that the service gives a page at a time."""

from __future__ import annotations

from typing import Final

from gridtide.cli import views
from gridtide.cli.client import Client, Query
from gridtide.store.ports import Json

_PAGE: Final = 1000
"""Jobs asked for at once: the most that the service gives."""


def jobs(client: Client, query: Query, *, limit: int | None = None) -> list[Json]:
    """Documents of the jobs that fit, in order; at most ``limit``, None: all."""
    documents: list[Json] = []
    after = query.get("after")
    while limit is None or len(documents) < limit:
        asked = _PAGE if limit is None else min(_PAGE, limit - len(documents))
        page = client.get("/v1/jobs", {**query, "after": after, "limit": asked})
        rows = views.jobs(page)
        documents += page["jobs"] if isinstance(page, dict) else []
        if len(rows) < asked:
            break
        after = rows[-1].id
    return documents
