"""The unpacked Debian trees that clusters and workers of the tests run on."""

from __future__ import annotations

from pathlib import Path

from tests.real.engines import need
from tests.real.images import tree

RELEASES = {"22.05": "slurm-tree", "24.11": "batch-tree"}


def slurm_tree(release: str) -> Path:
    """Of Debian 12 (22.05) or 13 (24.11)."""
    need({"ip": "iproute2"})
    return tree(RELEASES[release])
