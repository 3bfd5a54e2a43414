import torch

from tests.stereo_pair import stereo_pair
from unposed.geometry.cameras import pixel_grid


def test_the_left_photo_is_the_right_one_moved_by_the_disparity():
    pair = stereo_pair()
    grid = pixel_grid(*pair.disparity.shape)
    grid[..., 0] -= pair.disparity
    scaled = 2 * grid / torch.tensor([pair.left.shape[1] - 1, pair.left.shape[0] - 1]) - 1
    right = pair.right.permute(2, 0, 1)[None].float()
    moved = torch.nn.functional.grid_sample(right, scaled[None], align_corners=True)[0].permute(1, 2, 0)
    difference = (moved - pair.left.float()).abs().mean(-1)
    still = (pair.right.float() - pair.left.float()).abs().mean(-1)
    assert difference[pair.seen].median() < 5
    assert difference[pair.seen].mean() < 0.4 * still[pair.seen].mean()
    assert 0.3 < pair.seen.float().mean() < 1
    torch.testing.assert_close(
        pair.disparity * pair.depth, torch.where(pair.depth > 0, pair.focal * pair.baseline, 0.0)
    )
