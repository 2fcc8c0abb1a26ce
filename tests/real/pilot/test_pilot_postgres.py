"""Every promise of the queue, and its crowd of agents, on PostgreSQL: the same tests as on SQLite, by import."""

from tests.unit.pilot.test_agents import *  # noqa: F403
from tests.unit.pilot.test_losing import *  # noqa: F403
from tests.unit.pilot.test_queue import *  # noqa: F403
