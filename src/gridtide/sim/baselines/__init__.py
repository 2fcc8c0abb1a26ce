"""Models of other autoscalers, for comparison in the simulator alone: docs/reference/baselines.md."""
