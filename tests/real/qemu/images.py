"""The images of virtual machines for tests: see :mod:`tests.real.images`."""

from tests.real.images import BUILDERS, QEMU, copy_of, image_store

__all__ = ["BUILDERS", "QEMU", "copy_of", "image_store"]
