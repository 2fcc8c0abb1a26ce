"""Queues: where jobs wait and workers register. See :mod:`gridtide.queues.protocol`."""
