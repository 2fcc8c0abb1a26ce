"""The same control plane as the shorter tests have."""

from tests.real.openstack.conftest import administrator, patient, plane, project

__all__ = ["administrator", "patient", "plane", "project"]
