"""The OpenStack cloud against a real control plane: Keystone, Placement, Glance, Neutron and Nova of Debian 12."""
