"""The main job, shown once on real input: `make demo`. It meets Shipmate only where people and events do."""
