"""Canonical views and kinematic trees of MASt3R-SfM against the reference's numbers."""

import numpy as np

from unposed.align.canonical import FOCAL_BOUNDS, CanonicalSums, CanonicalView
from unposed.align.kinematic import kinematic_tree

from .harness import Case, runs


@runs("mast3r-sfm", "canonical_view*")
def canonical_view(case: Case) -> None:
    assert (case.params["min_focal"], case.params["max_focal"]) == FOCAL_BOUNDS
    for c, shape in enumerate(case.params["cases"]):
        views = {mode: _canonical(case, c, shape["subsample"], mode) for mode in case.params["modes"]}
        for mode, view in views.items():
            case.check(f"canon2_{mode.replace('-', '_')}_{c}", view.relative_depth)
        view = views["avg-angle"]
        case.check(f"canon_{c}", view.points)
        case.check(f"conf_{c}", view.confidence)
        case.check(f"core_depth_{c}", view.anchor_depth)
        height, width = view.confidence.shape
        centre = case.tensor(f"pts_{c}").new_tensor([width / 2, height / 2])
        for method in case.params["focal_modes"]:
            case.check(f"focal_{method}_{c}", view.focal(centre, method).reshape(1))
        for name in [name for name in case.inputs if name.startswith(f"pix_{c}_")]:
            index, offset = view.anchors_of(case.tensor(name))
            case.check(name.replace("pix", "anchor_idx"), index)
            case.check(name.replace("pix", "anchor_off"), offset)


def _canonical(case: Case, c: int, stride: int, mode: str) -> CanonicalView:
    points, confidence = case.tensor(f"pts_{c}"), case.tensor(f"conf_{c}")
    sums = CanonicalSums(tuple(confidence.shape[1:]), stride, mode)
    for one, sure in zip(points, confidence, strict=True):
        sums.add(one, sure)
    return sums.finish()


@runs("mast3r-sfm", "kinematic_tree*")
def trees(case: Case) -> None:
    for c, sizes in enumerate(case.params["cases"]):
        anchors = (case.inputs[f"imsizes_{c}"].astype(np.int64) // sizes["subsample"]).prod(1)
        for mode in case.params["modes"]:
            tree = kinematic_tree(case.inputs[f"score_{c}"], anchors, mode)
            name = mode.replace("-", "_")
            case.check(f"{name}_root_{c}", np.array(tree.root))
            case.check(f"{name}_edges_{c}", np.array(tree.edges).reshape(-1, 2))
