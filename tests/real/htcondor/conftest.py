from collections.abc import AsyncIterator, Iterator

import pytest

from tests.real.htcondor.bench import Site
from tests.real.htcondor.pool import Pool, running_pool, settled


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """With two schedds, for all tests of a file."""
    with running_pool(schedds=2, more="SCHEDD_INTERVAL = 2\n") as pool:
        yield pool


@pytest.fixture
async def site(pool: Pool) -> AsyncIterator[Site]:
    """One more of the pool."""
    pool.numbers += 1
    made = Site(pool, pool.home / f"site-{pool.numbers}")
    await settled(made.queue)
    yield made
    await made.close()
