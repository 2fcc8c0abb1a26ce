"""Pure planning: from a snapshot and the site's rules to a plan, with a reason for everything.

No I/O, no clock, no chance: equal input gives an equal plan, so a plan can be printed, explained, replayed and tested.
"""

from gridtide.planning.planner import Planner, plan

__all__ = ["Planner", "plan"]
