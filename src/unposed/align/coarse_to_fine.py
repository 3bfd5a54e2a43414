"""Matching photos that are larger than a network's view: coarsely as a whole, then crop by crop (MASt3R, section 3.4).

Matches stay in pixels of the views throughout; fine ones are fractions of them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from unposed.align.matching import joined
from unposed.align.windows import Boxes, choose_windows, fit_windows, overlapping_windows
from unposed.geometry.cameras import map_pixels
from unposed.io.resize import ImageRule
from unposed.views import Matches, Pair, View

Matcher = Callable[[Sequence[View], Sequence[Pair]], Iterable[tuple[Pair, Matches]]]
"""Matches of pairs of indices into views, in their pixels."""
_PAIRS_AT_ONCE = 48
"""Pairs of crops that are in memory together."""


@dataclass(frozen=True, eq=False)
class WholePhoto:
    """A view and all pixels of the photo that it shows."""

    view: View
    pixels: Image.Image
    """RGB, after EXIF rotation."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photo."""
        return self.pixels.height, self.pixels.width

    def crop(self, box: Sequence[int], rule: ImageRule) -> View:
        """A view of the part (left, top, right, bottom) of the photo.

        Raises:
            UserError: the part is too narrow for the rule.
        """
        left, top, right, bottom = box
        plan = rule.plan(right - left, bottom - top)
        original_from_view = plan.original_from_view
        original_from_view[:2, 2] += left, top
        return View(
            name=self.view.name,
            image=torch.from_numpy(np.array(plan.apply(self.pixels.crop((left, top, right, bottom))))),
            original_from_view=torch.from_numpy(original_from_view),
            original_size=self.view.original_size,
            path=self.view.path,
            exif_focal=self.view.exif_focal,
        )


def shrunk(*views: View) -> bool:
    """Whether one of the views has fewer pixels than what it shows of its photo."""
    return any(float(view.original_from_view[0, 0]) > 1 for view in views)


def refine_by_crops(
    coarse: Matches,
    a: WholePhoto,
    b: WholePhoto,
    rule: ImageRule,
    match: Matcher,
    progress: Callable[[int, int], None] | None = None,
) -> Matches:
    """The matches that ``match`` finds between crops of both photos that show the same, by the coarse matches.

    Crops are as long as views by ``rule`` are, so that they show the photos at full resolution; where one photo shows
    things larger than the other, its crops are larger by as much. Where too few coarse matches say where to look, they
    are returned. ``progress(done, total)`` is told of pairs of crops.
    """
    boxes_a, boxes_b = _windows(coarse, a, b, rule.size)
    if len(boxes_a) == 0:
        return coarse
    found: list[Matches] = []
    for part_a, part_b in zip(boxes_a.split(_PAIRS_AT_ONCE), boxes_b.split(_PAIRS_AT_ONCE), strict=True):
        crops, pairs = _crops(a, b, part_a, part_b, rule)
        for (i, j), matches in match(crops, pairs):
            places = _between(crops[i], a.view, matches.points_a), _between(crops[j], b.view, matches.points_b)
            found.append(Matches(*places, matches.confidence))
            if progress is not None:
                progress(len(found), len(boxes_a))
    return joined(*found)


def _crops(
    a: WholePhoto, b: WholePhoto, boxes_a: Boxes, boxes_b: Boxes, rule: ImageRule
) -> tuple[list[View], list[Pair]]:
    """Views of the boxes, each once, and which go together."""
    index: dict[tuple[int, ...], int] = {}
    crops: list[View] = []
    for side, (photo, boxes) in enumerate(((a, boxes_a), (b, boxes_b))):
        for box in boxes.tolist():
            if (side, *box) not in index:
                index[side, *box] = len(crops)
                crops.append(photo.crop(box, rule))
    pairs = zip(boxes_a.tolist(), boxes_b.tolist(), strict=True)
    return crops, [(index[0, *box_a], index[1, *box_b]) for box_a, box_b in pairs]


def _windows(coarse: Matches, a: WholePhoto, b: WholePhoto, long_side: int) -> tuple[Boxes, Boxes]:
    """Pairs of boxes in the photos."""
    grid_a, grid_b = (fit_windows(overlapping_windows(photo.size, long_side), photo.size) for photo in (a, b))
    points_a = map_pixels(a.view.original_from_view, coarse.points_a.double())
    points_b = map_pixels(b.view.original_from_view, coarse.points_b.double())
    return choose_windows(points_a, points_b, grid_a, grid_b, a.size, b.size)


def _between(crop: View, view: View, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels of a crop as pixels of the view of the whole photo."""
    view_from_crop = torch.linalg.inv(view.original_from_view) @ crop.original_from_view
    return map_pixels(view_from_crop, pixels.double()).float()
