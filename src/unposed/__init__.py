"""3D from photos nobody calibrated: cameras, depth, points and matches."""

__version__ = "0.1.0"
