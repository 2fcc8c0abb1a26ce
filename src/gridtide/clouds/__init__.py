"""Clouds: where machines come from. See :mod:`gridtide.clouds.protocol`."""
