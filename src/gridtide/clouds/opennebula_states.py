"""OpenNebula's states of a machine, and what each is taken for.

Two numbers: the state, and within ``ACTIVE`` that of the life cycle (include/VirtualMachine.h). Taken for dead is only
what cannot run a program: a machine that is saved, suspended or moved goes on where it was, later.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gridtide.model.machines import MachineState

_STARTING: Final = MachineState.STARTING
_RUNNING: Final = MachineState.RUNNING
_ENDING: Final = MachineState.ENDING
_STOPPED: Final = MachineState.STOPPED
_BROKEN: Final = MachineState.BROKEN
_UNKNOWN: Final = MachineState.UNKNOWN

PENDING: Final = 1
HOLD: Final = 2
ACTIVE: Final = 3
DONE: Final = 6

STATES: Final[Mapping[int, tuple[str, MachineState]]] = MappingProxyType(
    {
        0: ("INIT", _STARTING),
        # Waits for a host; for ever, where none fits.
        1: ("PENDING", _STARTING),
        # Ours are made on hold, and released when it is certain that the worker has no second one.
        2: ("HOLD", _STARTING),
        # Saved with its programs, and its disks brought back: it goes on when somebody resumes it.
        4: ("STOPPED", _UNKNOWN),
        # Saved with its programs on its host.
        5: ("SUSPENDED", _UNKNOWN),
        # Kept in the database for ever, and not listed.
        6: ("DONE", MachineState.GONE),
        # Not in use since OpenNebula 5.
        7: ("FAILED", _BROKEN),
        # Switched off, by itself or by somebody: its programs are gone, the machine is not.
        8: ("POWEROFF", _STOPPED),
        # The same, with its disks brought back.
        9: ("UNDEPLOYED", _STOPPED),
        # Its images are being copied before it can wait for a host.
        10: ("CLONING", _STARTING),
        # They could not be: it never was on a host.
        11: ("CLONING_FAILURE", _BROKEN),
    }
)
"""All but ``ACTIVE``. Others, of a later OpenNebula, are UNKNOWN."""

LIFE_CYCLE: Final[Mapping[int, tuple[str, MachineState]]] = MappingProxyType(
    {
        0: ("LCM_INIT", _STARTING),
        1: ("PROLOG", _STARTING),
        2: ("BOOT", _STARTING),
        3: ("RUNNING", _RUNNING),
        # Moved while it runs.
        4: ("MIGRATE", _RUNNING),
        # Saved, moved, and resumed elsewhere or later.
        5: ("SAVE_STOP", _UNKNOWN),
        6: ("SAVE_SUSPEND", _UNKNOWN),
        7: ("SAVE_MIGRATE", _UNKNOWN),
        8: ("PROLOG_MIGRATE", _UNKNOWN),
        9: ("PROLOG_RESUME", _UNKNOWN),
        10: ("EPILOG_STOP", _UNKNOWN),
        11: ("EPILOG", _ENDING),
        12: ("SHUTDOWN", _ENDING),
        13: ("CANCEL", _ENDING),
        14: ("FAILURE", _BROKEN),
        # An administrator has it made anew from its template, under the same id.
        15: ("CLEANUP_RESUBMIT", _UNKNOWN),
        # Its host does not answer: it may run on.
        16: ("UNKNOWN", _UNKNOWN),
        17: ("HOTPLUG", _RUNNING),
        # Asked to switch itself off; it may refuse, and run again.
        18: ("SHUTDOWN_POWEROFF", _UNKNOWN),
        # Started again after one of the other states. Its agent starts again too, or goes on.
        19: ("BOOT_UNKNOWN", _UNKNOWN),
        20: ("BOOT_POWEROFF", _UNKNOWN),
        21: ("BOOT_SUSPENDED", _UNKNOWN),
        22: ("BOOT_STOPPED", _UNKNOWN),
        23: ("CLEANUP_DELETE", _ENDING),
        24: ("HOTPLUG_SNAPSHOT", _RUNNING),
        25: ("HOTPLUG_NIC", _RUNNING),
        26: ("HOTPLUG_SAVEAS", _RUNNING),
        # Work on the disks of a machine that is off, or suspended.
        27: ("HOTPLUG_SAVEAS_POWEROFF", _STOPPED),
        28: ("HOTPLUG_SAVEAS_SUSPENDED", _UNKNOWN),
        # Asked to switch itself off, to be undeployed.
        29: ("SHUTDOWN_UNDEPLOY", _UNKNOWN),
        30: ("EPILOG_UNDEPLOY", _STOPPED),
        31: ("PROLOG_UNDEPLOY", _UNKNOWN),
        32: ("BOOT_UNDEPLOY", _UNKNOWN),
        33: ("HOTPLUG_PROLOG_POWEROFF", _STOPPED),
        34: ("HOTPLUG_EPILOG_POWEROFF", _STOPPED),
        35: ("BOOT_MIGRATE", _UNKNOWN),
        # What was to be done did not work, and the machine does not run; an administrator may recover it.
        36: ("BOOT_FAILURE", _BROKEN),
        37: ("BOOT_MIGRATE_FAILURE", _BROKEN),
        38: ("PROLOG_MIGRATE_FAILURE", _BROKEN),
        39: ("PROLOG_FAILURE", _BROKEN),
        40: ("EPILOG_FAILURE", _BROKEN),
        41: ("EPILOG_STOP_FAILURE", _BROKEN),
        42: ("EPILOG_UNDEPLOY_FAILURE", _BROKEN),
        43: ("PROLOG_MIGRATE_POWEROFF", _STOPPED),
        44: ("PROLOG_MIGRATE_POWEROFF_FAILURE", _BROKEN),
        45: ("PROLOG_MIGRATE_SUSPEND", _UNKNOWN),
        46: ("PROLOG_MIGRATE_SUSPEND_FAILURE", _BROKEN),
        47: ("BOOT_UNDEPLOY_FAILURE", _BROKEN),
        48: ("BOOT_STOPPED_FAILURE", _BROKEN),
        49: ("PROLOG_RESUME_FAILURE", _BROKEN),
        50: ("PROLOG_UNDEPLOY_FAILURE", _BROKEN),
        51: ("DISK_SNAPSHOT_POWEROFF", _STOPPED),
        52: ("DISK_SNAPSHOT_REVERT_POWEROFF", _STOPPED),
        53: ("DISK_SNAPSHOT_DELETE_POWEROFF", _STOPPED),
        54: ("DISK_SNAPSHOT_SUSPENDED", _UNKNOWN),
        55: ("DISK_SNAPSHOT_REVERT_SUSPENDED", _UNKNOWN),
        56: ("DISK_SNAPSHOT_DELETE_SUSPENDED", _UNKNOWN),
        57: ("DISK_SNAPSHOT", _RUNNING),
        58: ("DISK_SNAPSHOT_REVERT", _RUNNING),
        59: ("DISK_SNAPSHOT_DELETE", _RUNNING),
        # Taken away from a host that does not answer, on which it may run on: also where that failed.
        60: ("PROLOG_MIGRATE_UNKNOWN", _UNKNOWN),
        61: ("PROLOG_MIGRATE_UNKNOWN_FAILURE", _UNKNOWN),
        62: ("DISK_RESIZE", _RUNNING),
        63: ("DISK_RESIZE_POWEROFF", _STOPPED),
        64: ("DISK_RESIZE_UNDEPLOYED", _STOPPED),
        65: ("HOTPLUG_NIC_POWEROFF", _STOPPED),
        66: ("HOTPLUG_RESIZE", _RUNNING),
        67: ("HOTPLUG_SAVEAS_UNDEPLOYED", _STOPPED),
        68: ("HOTPLUG_SAVEAS_STOPPED", _UNKNOWN),
        69: ("BACKUP", _RUNNING),
        70: ("BACKUP_POWEROFF", _STOPPED),
        71: ("RESTORE", _STOPPED),
    }
)
"""Of machines that are ``ACTIVE``. Others, of a later OpenNebula, are UNKNOWN."""


def state_of(state: int, life_cycle: int) -> tuple[str, MachineState]:
    """OpenNebula's name for it, and ours."""
    table, number = (LIFE_CYCLE, life_cycle) if state == ACTIVE else (STATES, state)
    return table.get(number, (f"state {state}, life-cycle state {life_cycle}", _UNKNOWN))
