import torch
from torch import Tensor

from unposed.align.clean import clean_pointcloud
from unposed.geometry.cameras import intrinsics_matrix, pointmap_from_depth


def _clean(depths: list[float], confidences: list[float], **options: float) -> list[Tensor]:
    """Two equal cameras side by side that see planes at the given depths."""
    k = intrinsics_matrix(torch.tensor([20.0, 20.0]), torch.tensor([[7.5, 5.5], [7.5, 5.5]]))
    camera_from_world = torch.eye(4).repeat(2, 1, 1)
    camera_from_world[1, 0, 3] = -0.1
    maps = [torch.full((12, 16), depth) for depth in depths]
    points = [pointmap_from_depth(depth, k[0]) for depth in maps]
    points[1] = points[1] + torch.tensor([0.1, 0.0, 0.0])
    confidence = [torch.full((12, 16), value) for value in confidences]
    return clean_pointcloud(k, camera_from_world, maps, points, confidence, **options)


def test_a_less_certain_layer_in_front_is_removed() -> None:
    first, second = _clean([1.0, 2.0], [2.0, 5.0])
    assert (first[:, 4:] == 0).all()
    assert (second == 5).all()


def test_a_more_certain_layer_in_front_stays() -> None:
    first, second = _clean([1.0, 2.0], [5.0, 2.0])
    assert (first == 5).all()
    assert (second == 2).all()


def test_layers_within_the_tolerance_stay() -> None:
    assert (_clean([1.9, 2.0], [2.0, 5.0], tolerance=0.1)[0] == 2).all()
    assert (_clean([1.9, 2.0], [2.0, 5.0], tolerance=0.01)[0] == 0).any()


def test_bad_confidence_is_a_limit_and_never_raises() -> None:
    first, _ = _clean([1.0, 2.0], [2.0, 5.0], bad_confidence=1.5)
    assert set(first.unique().tolist()) <= {1.5, 2.0}
    assert (_clean([1.0, 2.0], [1.2, 5.0], bad_confidence=1.5)[0] == torch.tensor(1.2)).all()
