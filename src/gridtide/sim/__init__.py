"""Virtual time: the production controller, run faster than the clock on the wall."""
