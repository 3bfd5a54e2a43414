"""Is a pair of photos rectified, and how large do its disparities get: what matches of SIFT say of both."""

from dataclasses import dataclass

import cv2
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.geometry.essential import fundamental_inliers
from unposed.models.flow import Picture
from unposed.models.sift import detect, match

LARGEST_SIDE = 1000
"""Pixels of the longer side at which keypoints are looked for."""
SAME_ROW = 1.5
"""Rows, at that size, by which two ends of a match of a rectified pair may differ."""
KEYPOINTS = 2000
FEWEST = 20
"""Matches below which nothing can be said."""
NEARLY = 0.6
"""Share of the matches that obey the best epipolar geometry which a rectified pair has in rows at least."""
EPIPOLAR_ERROR = 1.0
"""Pixels, at that size."""
_MARGIN, _MARGIN_SHARE, _UNKNOWN_SHARE = 16.0, 1.25, 0.25


@dataclass(frozen=True, eq=False)
class RowMatches:
    """Matches of a pair of one size as a stereo camera sees them, wrong ones among them; in pixels of the photos."""

    disparity: Float[Tensor, "n"]
    """x in the left photo less x in the right one."""
    rows_apart: Float[Tensor, "n"]
    """y in the right photo less y in the left one."""
    obeying: Bool[Tensor, "n"]
    """Which obey the epipolar geometry that most of them obey, whichever it is."""
    same_row: float
    """Largest difference of rows that a rectified pair of this size may have."""
    width: int
    """Of the photos."""

    @property
    def in_rows(self) -> Float[Tensor, "m"]:
        """Disparities of the matches whose ends lie in one row."""
        return self.disparity[self.rows_apart.abs() <= self.same_row]

    @property
    def enough(self) -> bool:
        """Whether there are enough to say anything."""
        return max(int(self.obeying.sum()), len(self.in_rows)) >= FEWEST

    @property
    def rectified(self) -> bool:
        """Whether rows explain nearly as many matches as the best geometry does; True where too few tell."""
        return not self.enough or len(self.in_rows) >= NEARLY * int(self.obeying.sum())

    @property
    def typical_offset(self) -> float:
        """Median difference of rows of the matches that obey the best geometry."""
        return float(self.rows_apart[self.obeying].abs().median())

    @property
    def swapped(self) -> bool:
        """Whether nearly everything lies further right in the photo that is called the right one."""
        known = self.in_rows
        return len(known) >= FEWEST and float((known < -self.same_row / 2).float().mean()) > 0.9

    @property
    def largest_disparity(self) -> float:
        """What to look for at most: that of the nearest match with a margin; a quarter of the width where none is."""
        known = self.in_rows
        if len(known) < FEWEST:
            return _UNKNOWN_SHARE * self.width
        nearest = max(float(known.quantile(0.99)), 0.0)
        return min(nearest * _MARGIN_SHARE + _MARGIN * self.same_row / SAME_ROW, self.width / 2)


def match_rows(left: Picture, right: Picture) -> RowMatches:
    """Matches of two photos of one size."""
    height, width = left.shape[:2]
    factor = min(1.0, LARGEST_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = [torch.from_numpy(cv2.resize(x.numpy(), size, interpolation=cv2.INTER_AREA)) for x in (left, right)]
    found = [detect(picture, KEYPOINTS) for picture in small]
    pairs = match(*found)
    points = [keypoints.points[column] for keypoints, column in zip(found, pairs.T, strict=True)]
    obeying = fundamental_inliers(points[0], points[1], size[::-1], EPIPOLAR_ERROR)
    offset = (points[1] - points[0]) / factor
    return RowMatches(-offset[:, 0], offset[:, 1], obeying, SAME_ROW / factor, width)
