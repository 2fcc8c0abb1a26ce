"""How machines can be told what they are."""

from __future__ import annotations

from enum import StrEnum


class ContextFormat(StrEnum):
    """What a machine's first program understands as user-data."""

    AGENT = "agent"
    """The agent's own JSON (docs/worker-protocol.md), with the files to write and the scripts to run."""
    CLOUD_INIT = "cloud-init"
    """Multi-part MIME."""
    AMICONFIG = "amiconfig"
    """CernVM's sections."""
    OPENNEBULA = "opennebula"
    """``context.sh``: shell variables, the user-data among them."""
