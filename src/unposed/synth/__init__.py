"""Procedural scenes with perfect ground truth."""
