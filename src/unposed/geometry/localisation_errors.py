"""Scores of camera localisation: medians and recall over queries with metric pose errors."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def median_errors(
    translation: Float[np.ndarray, "queries"], rotation: Float[np.ndarray, "queries"]
) -> tuple[float, float]:
    """Median translation error (metres) and rotation error (degrees); a failed query has infinite errors."""
    return float(np.median(translation)), float(np.median(rotation))


def recall_within(
    translation: Float[np.ndarray, "queries"],
    rotation: Float[np.ndarray, "queries"],
    thresholds: Sequence[tuple[float, float]],
) -> list[float]:
    """Percentage of queries whose errors are within each pair of limits (metres, degrees), both excluded."""
    return [100 * float(((translation < metres) & (rotation < degrees)).mean()) for metres, degrees in thresholds]
