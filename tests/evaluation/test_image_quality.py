import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from unposed.errors import UserError
from unposed.evaluation.image_quality import lpips, psnr, ssim


def _pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 3, 6, 7, generator=generator)
    truth = torch.nn.functional.interpolate(truth, (48, 56), mode="bicubic").clamp(0, 1)
    return truth + 0.1 * torch.randn(truth.shape, generator=generator), truth


def test_psnr_agrees_with_torchmetrics_and_clips() -> None:
    found, truth = _pictures()
    for k, value in enumerate(psnr(found, truth)):
        wanted = peak_signal_noise_ratio(found[k].clamp(0, 1), truth[k], data_range=1.0)
        assert value.item() == pytest.approx(wanted.item(), abs=1e-4)
    assert math.isinf(psnr(truth, truth)[0])


def test_ssim_agrees_with_torchmetrics_but_for_border_and_sample_covariance() -> None:
    found, truth = _pictures()
    _, everywhere = structural_similarity_index_measure(found, truth, data_range=1.0, return_full_image=True)
    wanted = everywhere[..., 5:-5, 5:-5].flatten(1).mean(1)
    torch.testing.assert_close(ssim(found, truth), wanted.double(), atol=1e-3, rtol=0)
    assert ssim(truth, truth).tolist() == pytest.approx([1, 1, 1])


def test_ssim_of_pictures_smaller_than_its_window_is_refused() -> None:
    with pytest.raises(UserError, match="11 pixels"):
        ssim(torch.zeros(1, 3, 8, 20), torch.zeros(1, 3, 8, 20))


def test_lpips_without_its_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lpips", None)
    with pytest.raises(UserError, match="pip install lpips"):
        lpips(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))
