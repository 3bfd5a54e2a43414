"""`depth` with a model that looks at single photos and knows metres and normals."""

import json

import cv2
import numpy as np
import pytest
import torch

from tests.models import tiny_moge
from tests.tasks.perfect import HEIGHT, WIDTH, rendered, true_cameras, write_photos
from tests.test_cli import outcome
from unposed.errors import UserError
from unposed.io.resize import WholeRule
from unposed.models.base import MonocularPrediction
from unposed.nets import dinov2
from unposed.tasks.depth import depth, write_depths
from unposed.tasks.reconstruct import reconstruct


class PerfectMonocular:
    """True depth and normals towards the camera, at half the photo's size; the top rows are sky."""

    name = "perfect"
    image_rule = WholeRule(64)

    def __init__(self, truth, normals=True):
        self.truth, self.cameras, self.normals = truth, true_cameras(truth), normals

    def infer(self, views, *, intrinsics=None, normals=True):
        found = []
        for view in views:
            height, width = view.size
            true = self.truth.depth[0, int(view.name[0])]
            values = true[1::2, 1::2]
            mask = torch.ones(height, width, dtype=torch.bool)
            mask[:6] = False
            camera = self.cameras[view.name].through(torch.linalg.inv(view.original_from_view), width, height)
            towards = torch.tensor([0.0, 0, -1]).expand(height, width, 3) if self.normals else None
            points = torch.zeros(height, width, 3)
            found.append(MonocularPrediction(points, values, mask, camera.intrinsics, towards, True))
        return found


@pytest.fixture(scope="module")
def truth():
    return rendered()


@pytest.fixture
def photos(tmp_path, truth):
    write_photos(tmp_path / "photos", truth)
    return tmp_path / "photos"


def test_every_photo_is_taken_by_itself_in_metres(photos, truth):
    results = depth(photos, model=PerfectMonocular(truth))
    assert [result.name for result in results] == ["0.png", "1.png", "2.png", "3.png"]
    for k, result in enumerate(results):
        assert result.scene is None
        assert result.metric
        assert result.depth.shape == (HEIGHT, WIDTH)
        assert (result.depth[:10] == 0).all()
        assert (result.confidence[:10] == 0).all()
        known = result.depth > 0
        assert 0.8 < float(known.float().mean()) < 0.9
        assert float((result.depth[known] / truth.depth[0, k][known] - 1).abs().median()) < 0.02
        camera = true_cameras(truth)[result.name]
        assert torch.allclose(result.intrinsics, camera.intrinsics, atol=1e-3)
        assert torch.equal(result.normals[40, 40], torch.tensor([0.0, 0, -1]))
        assert (result.normals[0] == 0).all()
        assert len(result.points().positions) > 100


def test_normals_are_written_where_there_are_some(photos, truth, tmp_path):
    written = write_depths(photos / "0.png", tmp_path / "with", model=PerfectMonocular(truth))
    facts = written.photos["0.png"]
    picture = cv2.imread(facts["normals"])[..., ::-1]
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture[40, 40].tolist() == [128, 128, 255]
    assert picture[0, 0].tolist() == [0, 0, 0]
    with np.load(facts["npz"]) as arrays:
        assert arrays["normals"].shape == (HEIGHT, WIDTH, 3)
        assert arrays["metric"]
    bare = write_depths(photos / "0.png", tmp_path / "bare", model=PerfectMonocular(truth, normals=False))
    assert "normals" not in bare.photos["0.png"]
    with np.load(bare.photos["0.png"]["npz"]) as arrays:
        assert "normals" not in arrays


def test_the_command_takes_a_released_file(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dinov2, "VARIANTS", dinov2.VARIANTS | tiny_moge.TINY)
    path = tiny_moge.write(tmp_path / "moge-tiny.pt", tiny_moge.v2_config())
    arguments = ["depth", str(photos), "--model", str(path), "--out", str(tmp_path / "out"), "--json", "--quiet"]
    status, out, _ = outcome(capsys, monkeypatch, *arguments)
    assert status == 0
    summary = json.loads(out)
    assert (summary["model"], summary["by_themselves"], summary["scale"]) == ("moge-tiny", 4, "metric")
    assert {path.name for path in (tmp_path / "out").glob("0*")} == {"0.npz", "0_colour.png", "0_normals.png"}


def test_tasks_that_need_poses_refuse_it_with_a_sentence(photos, truth):
    with pytest.raises(UserError, match="unposed depth"):
        reconstruct(photos, model=PerfectMonocular(truth))
