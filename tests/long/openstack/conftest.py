"""The same control plane as the shorter tests have."""

from tests.real.openstack.conftest import administrator, plane, project

__all__ = ["administrator", "plane", "project"]
