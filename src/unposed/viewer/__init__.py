"""Interactive viewer of scenes in the browser (viser)."""

from unposed.viewer.controls import view_scene

__all__ = ["view_scene"]
