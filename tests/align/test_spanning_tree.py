import torch

from benchmarks.synthetic_pairs import Noise, SyntheticScene, make_scene, predict_all
from unposed.align.objective import Objective, PairData
from unposed.align.spanning_tree import parameters_from_known_cameras, parameters_from_tree, start_from_tree
from unposed.geometry.focal import focal_from_pointmap

SIZES = [(24, 32), (32, 24), (28, 28)]


def _data(scene: SyntheticScene, noise: Noise) -> PairData:
    pairs = predict_all(scene, noise)
    return PairData.stack(
        torch.tensor(list(pairs)),
        [one.points_i.reshape(-1, 3) for one in pairs.values()],
        [one.points_j.reshape(-1, 3) for one in pairs.values()],
        [one.confidence_i.flatten() for one in pairs.values()],
        [one.confidence_j.flatten() for one in pairs.values()],
        [view.size for view in scene.views],
    )


def test_perfect_pairs_need_no_steps() -> None:
    scene = make_scene(SIZES)
    data, centres = _data(scene, Noise(0, 0, 0, 0, 0)), scene.intrinsics[:, :2, 2].contiguous()
    parameters = parameters_from_tree(data, start_from_tree(data, centres), centres)
    assert Objective(data)(parameters) < 1e-3
    torch.testing.assert_close(parameters.pairwise_scale().log().mean().exp(), torch.tensor(0.5))


def test_an_anchor_starts_with_the_focal_of_its_own_tree_pair() -> None:
    scene = make_scene(SIZES)
    data, centres = _data(scene, Noise()), scene.intrinsics[:, :2, 2].contiguous()
    start = start_from_tree(data, centres)
    for row in reversed(start.tree):
        photo = int(data.edges[row, 0])
        if photo in data.edges[start.tree[: start.tree.index(row)], 0].tolist():
            continue
        height, width = data.sizes[photo]
        points = data.points_i[row, : height * width].reshape(height, width, 3)
        torch.testing.assert_close(start.focals[photo], focal_from_pointmap(points, centres[photo]))


def test_known_cameras_of_different_sizes_and_focals_place_the_pairs() -> None:
    scene = make_scene(SIZES)
    data, centres = _data(scene, Noise(0, 0, 0, 0, 0)), scene.intrinsics[:, :2, 2].contiguous()
    focals = scene.intrinsics[:, 0, 0]
    parameters = parameters_from_known_cameras(data, scene.world_from_camera, focals, centres)
    assert Objective(data)(parameters) < 0.05
    for photo, depth in enumerate(scene.depth):
        ours = parameters.depth()[photo, : depth.numel()].reshape(depth.shape)
        torch.testing.assert_close(ours, depth, rtol=0.02, atol=0)
