import torch

from unposed.geometry.cameras import pixel_grid
from unposed.nets.convnet import STRIDE, ConvNet, corner_response, gaussian_blur, sample_descriptors, sample_map


def test_outputs_cover_images_of_any_size():
    network = ConvNet(widths=(4, 8, 8, 8, 8), channels=8).eval()
    for height, width in ((64, 96), (50, 75)):
        features = network(torch.rand(2, 3, height, width))
        cells = (-(-height // STRIDE), -(-width // STRIDE))
        assert features.descriptors.shape == (2, 8, *cells)
        assert features.reliability.shape == features.log_depth.shape == features.log_scale.shape == (2, *cells)


def test_features_move_with_the_image():
    torch.manual_seed(0)
    network = ConvNet(widths=(4, 8, 8, 8, 8), channels=8).eval()
    image = torch.rand(1, 3, 640, 672)
    whole = network(image).descriptors
    shifted = network(image[..., 32:]).descriptors
    inner = slice(75, 85)
    torch.testing.assert_close(whole[..., inner, 80:84], shifted[..., inner, 72:76], atol=1e-4, rtol=1e-3)


def test_sampling_knows_where_cells_lie():
    rows, columns = 12, 16
    centres = (pixel_grid(rows, columns) * STRIDE + (STRIDE - 1) / 2).permute(2, 0, 1)[None]
    points = torch.tensor([[[10.3, 20.7], [33.0, 5.25], [50.0, 40.0]]])
    torch.testing.assert_close(sample_map(centres, points), points, atol=1e-4, rtol=0)
    assert torch.allclose(sample_descriptors(torch.rand(1, 5, rows, columns), points).norm(dim=-1), torch.ones(1, 3))


def test_blur_has_the_width_it_says_and_keeps_constants():
    torch.testing.assert_close(gaussian_blur(torch.full((1, 2, 9, 11), 0.3), 1.5), torch.full((1, 2, 9, 11), 0.3))
    impulse = torch.zeros(1, 1, 31, 31)
    impulse[..., 15, 15] = 1
    blurred = gaussian_blur(impulse, 2.0)[0, 0]
    offsets = torch.arange(31.0) - 15
    assert abs(float(blurred.sum()) - 1) < 1e-5
    assert abs(float((blurred.sum(0) * offsets**2).sum()) - 4) < 0.5


def test_corners_answer_and_edges_do_not():
    image = torch.zeros(1, 3, 48, 48)
    image[..., 16:, 20:] = 1
    response = corner_response(image)[0]
    peak = int(response.argmax())
    assert abs(peak // 48 - 15.5) <= 2
    assert abs(peak % 48 - 19.5) <= 2
    assert response[40, 20] < 0.05 * response.max()
    assert response[5, 5] < 1e-3
