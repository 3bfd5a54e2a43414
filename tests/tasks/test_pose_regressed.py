import json

import pytest
import torch

from tests.models import tiny
from tests.tasks.perfect import rendered, write_photos
from tests.test_cli import outcome
from unposed.errors import UserError
from unposed.geometry.pose_errors import direction_error, rotation_error
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import invert_rigid, rigid
from unposed.io.resize import ImageRule
from unposed.models.base import PairPose
from unposed.synth import RenderedViews
from unposed.tasks.depth import depth
from unposed.tasks.pose import described, relative_pose, summary
from unposed.tasks.reconstruct import reconstruct


class Regressing:
    """Knows the true poses, up to the length of translations, and turns its second opinion by some degrees."""

    name = "oracle"
    image_rule = ImageRule(112)

    def __init__(self, truth: RenderedViews, turned: float = 0.0, diverted: float = 0.0) -> None:
        self.truth, self.turned, self.diverted = truth, turned, diverted

    def encode(self, views):
        return [self.truth.world_from_camera[0, int(view.name[0])].double() for view in views]

    def relative_poses(self, views, features, pairs):
        for i, j in pairs:
            i_from_j = invert_rigid(features[i]) @ features[j]
            back = invert_rigid(i_from_j)
            across = torch.linalg.cross(back[:3, 3], torch.tensor([0.3, 1.0, 0.2], dtype=torch.float64))
            axis = across / across.norm()
            turn, divert = (matrix_from_axis_angle(axis * a / 57.29578) for a in (self.turned, self.diverted))
            yield (
                (i, j),
                PairPose(
                    rigid(turn @ back[:3, :3], divert @ back[:3, 3]), rigid(i_from_j[:3, :3], 7 * i_from_j[:3, 3])
                ),
            )


@pytest.fixture(scope="module")
def truth() -> RenderedViews:
    return rendered(2)


@pytest.fixture
def photos(tmp_path, truth):
    write_photos(tmp_path / "photos", truth)
    return tmp_path / "photos"


def test_the_pose_is_the_models_with_a_translation_of_length_one(photos, truth):
    pose = relative_pose(photos / "0.png", photos / "1.png", model=Regressing(truth))
    b_from_a = (invert_rigid(truth.world_from_camera[0, 1]) @ truth.world_from_camera[0, 0]).double()
    assert float(rotation_error(pose.b_from_a[:3, :3], b_from_a[:3, :3])) < 1e-3
    assert float(direction_error(pose.b_from_a[:3, 3], b_from_a[:3, 3])) < 1e-3
    assert float(pose.b_from_a[:3, 3].norm()) == pytest.approx(1)
    assert (pose.scale, pose.method, pose.reliable, pose.reason) == ("unit", "oracle", True, "")
    assert pose.intrinsics_a is None
    assert pose.matches == 0
    assert "two predictions" in described(pose)["matches_that_agree"]


@pytest.mark.parametrize(("turned", "diverted"), [(8.0, 0.0), (0.0, 40.0)])
def test_a_model_that_contradicts_itself_is_not_believed(photos, truth, turned, diverted):
    pose = relative_pose(photos / "0.png", photos / "1.png", model=Regressing(truth, turned, diverted))
    assert not pose.reliable
    assert "two predictions" in pose.reason
    assert pose.rotation_uncertainty == pytest.approx(turned / 2**0.5, abs=1e-3)
    assert pose.translation_uncertainty == pytest.approx(diverted / 2**0.5, abs=1e-3)


def test_a_small_contradiction_is_the_uncertainty(photos, truth):
    pose = relative_pose(photos / "0.png", photos / "1.png", model=Regressing(truth, 2.0, 5.0))
    assert pose.reliable
    assert pose.rotation_uncertainty == pytest.approx(2 / 2**0.5, abs=1e-3)


def test_different_zoom_is_told(photos, truth):
    known = {"focal_a": 100.0, "focal_b": 180.0}
    assert "zoom" in relative_pose(photos / "0.png", photos / "1.png", model=Regressing(truth), **known).reason
    assert relative_pose(photos / "0.png", photos / "1.png", model=Regressing(truth), focal_a=100.0).reliable


def test_numbers_that_are_none_give_the_identity(photos, truth):
    class Broken(Regressing):
        def relative_poses(self, views, features, pairs):
            for pair, pose in super().relative_poses(views, features, pairs):
                yield pair, PairPose(pose.j_from_i * float("nan"), pose.i_from_j)

    pose = relative_pose(photos / "0.png", photos / "1.png", model=Broken(truth))
    assert not pose.reliable
    assert torch.equal(pose.b_from_a, torch.eye(4, dtype=torch.float64))


def test_what_such_a_model_cannot_do_is_one_sentence(photos, truth):
    model = Regressing(truth)
    with pytest.raises(UserError, match="--method pnp"):
        relative_pose(photos / "0.png", photos / "1.png", model=model, method="pnp")
    with pytest.raises(UserError, match="unposed pose"):
        depth(photos, model=model)
    with pytest.raises(UserError, match="unposed pose"):
        reconstruct(photos, model=model)


def test_on_the_command_line_a_file_of_reloc3r_gives_the_same_keys(photos, tmp_path, capsys, monkeypatch):
    path = tiny.write_reloc3r(tmp_path / "hub")
    pair = [str(photos / "0.png"), str(photos / "1.png")]
    status, printed, _ = outcome(capsys, monkeypatch, "pose", *pair, "--model", str(path), "--json", "--quiet")
    assert status == 0
    facts = json.loads(printed)
    assert facts.keys() == summary(relative_pose(*pair, model="classic")).keys()
    assert (facts["scale"], facts["method"], facts["intrinsics_a"]) == ("unit", "hub", None)
    rotation = torch.tensor(facts["b_from_a"], dtype=torch.float64)[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)
    status, _, err = outcome(capsys, monkeypatch, "pose", *pair, "--model", str(path), "--method", "essential")
    assert status == 2
    assert "--method essential" in err
