"""Seed disks: what a machine is told at its first boot, as cloud-init's NoCloud reads it.

An ISO 9660 image with the label CIDATA and the files ``meta-data`` and ``user-data`` (cloud-init documentation,
"NoCloud"). Gridtide's own guest also reads ``random-seed`` and, in ``meta-data``, when the machine was launched.
"""

from __future__ import annotations

import io
from typing import Final

import pycdlib

SIZE: Final = 1024 * 1024
"""Bytes of every seed disk that fits: machines that are continued from a saved state must all have one size."""


def seed_disk(worker: str, user_data: bytes, *, launched: float, entropy: bytes) -> bytes:
    """The image; padded to :data:`SIZE`, larger when the user-data is."""
    meta = f"instance-id: {worker}\nlocal-hostname: {worker}\nlaunched: {launched:.3f}\n".encode()
    disk = pycdlib.PyCdlib()
    disk.new(interchange_level=3, vol_ident="CIDATA", rock_ridge="1.09")
    files = (
        ("METADATA.;1", "meta-data", meta),
        ("USERDATA.;1", "user-data", user_data),
        ("RANDOM.;1", "random-seed", entropy),
    )
    for short, name, content in files:
        disk.add_fp(io.BytesIO(content), len(content), f"/{short}", rr_name=name)
    written = io.BytesIO()
    disk.write_fp(written)
    disk.close()
    image = written.getvalue()
    return image + bytes(-len(image) % SIZE)
