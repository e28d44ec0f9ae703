"""The edge: one module for each outside system, each the real side of a port in `shipmate.ports`."""
