"""Policies: each says in one small object what a group aims at."""

from __future__ import annotations

from gridtide.model import rules
from gridtide.planning.policies.base import Aim, Outlook, Policy, Pulse
from gridtide.planning.policies.fixed import KeepCount
from gridtide.planning.policies.load import FollowLoad
from gridtide.planning.policies.per_job import OnePerJob
from gridtide.planning.policies.plug_in import Guarded, PlugInPolicy
from gridtide.planning.policies.queue import FollowQueue
from gridtide.planning.policies.schedule import FollowSchedule

__all__ = ["Aim", "Outlook", "PlugInPolicy", "Policy", "Pulse", "policy_of"]


def policy_of(parameters: rules.Policy) -> Policy:
    """The policy that the site file's parameters ask for."""
    match parameters:
        case rules.QueuePolicy():
            return FollowQueue(parameters)
        case rules.PerJobPolicy():
            return OnePerJob(parameters)
        case rules.FixedPolicy():
            return KeepCount(parameters)
        case rules.LoadPolicy():
            return FollowLoad(parameters)
        case rules.SchedulePolicy():
            return FollowSchedule(parameters, policy_of(parameters.follow))
        case rules.OtherPolicy():
            return Guarded(parameters)
