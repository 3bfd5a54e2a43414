"""Interactive viewer."""
