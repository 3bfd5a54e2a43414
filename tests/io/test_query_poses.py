import pytest
import torch

from unposed.errors import UserError
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid
from unposed.io.query_poses import write_query_poses, write_submission


def test_lines_are_camera_from_world_with_w_first(tmp_path):
    quarter = matrix_from_axis_angle(torch.tensor([0.0, 0.0, torch.pi / 2], dtype=torch.float64))
    pose = rigid(quarter, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    write_query_poses(tmp_path / "poses.txt", {"night/a.jpg": pose})
    name, *numbers = (tmp_path / "poses.txt").read_text().split()
    assert name == "night/a.jpg"
    expected = [0.5**0.5, 0, 0, -(0.5**0.5), -2, 1, -3]  # the inverse turns back, and R^T c = (2, -1, 3)
    assert [float(n) for n in numbers] == pytest.approx(expected, abs=1e-9)


def test_a_submission_has_every_query_by_its_base_name(tmp_path):
    write_submission(tmp_path / "s.txt", {"night/a.jpg": None, "b.jpg": torch.eye(4)})
    assert (tmp_path / "s.txt").read_text() == "a.jpg 1 0 0 0 0 0 0\nb.jpg 1 0 0 0 0 0 0\n"


def test_an_unwritable_place_is_told(tmp_path):
    (tmp_path / "poses.txt").mkdir()
    with pytest.raises(UserError, match=r"poses\.txt"):
        write_query_poses(tmp_path / "poses.txt", {})
