"""The pure core: every rule of a release, with no I/O, clock, environment, randomness or logging."""
