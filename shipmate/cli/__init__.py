"""The `shipmate` command."""
