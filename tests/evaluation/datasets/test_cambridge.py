import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import cambridge


def write_place(root):
    folder, rows, listed = root / "ShopFacade", [], []
    for k in range(3):
        camera_from_world = torch.linalg.inv(made.pose(k))
        numbers = [*made.quaternion(camera_from_world), *made.pose(k)[:3, 3].tolist()]
        rows.append(" ".join(f"{v:.9f}" for v in (1600.0 + k, *numbers, 0.03, 0)))
        listed.append(f"seq1/frame0000{k + 1}.png " + " ".join(["0"] * 7))
    model = [f"seq1/frame0000{k + 1}.jpg\t{row}" for k, row in enumerate(rows)]
    made.write_text(folder / "reconstruction.nvm", "NVM_V3 ", "", "3", *model, "", "0", "")
    header = ["Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", ""]
    made.write_text(folder / "dataset_train.txt", *header, *listed[:2])
    made.write_text(folder / "dataset_test.txt", *header, listed[2])
    return folder


def test_the_camera_centre_is_not_taken_for_the_translation(tmp_path):
    write_place(tmp_path)
    (place,) = cambridge.read(tmp_path)
    assert [frame.photo.name for frame in place.references] == ["seq1/frame00001.png", "seq1/frame00002.png"]
    assert [frame.photo.name for frame in place.queries] == ["seq1/frame00003.png"]
    for k, frame in enumerate([*place.references, *place.queries]):
        torch.testing.assert_close(frame.camera.world_from_camera.double(), made.pose(k), atol=1e-6, rtol=0)
        expected = [[1600.0 + k, 0, 959.5], [0, 1600.0 + k, 539.5], [0, 0, 1]]
        assert frame.camera.intrinsics.tolist() == expected
        assert (frame.camera.width, frame.camera.height) == (1920, 1080)


def test_what_is_missing_is_named(tmp_path):
    folder = write_place(tmp_path)
    with pytest.raises(UserError, match="KingsCollege"):
        cambridge.read(tmp_path, ["KingsCollege"])
    made.write_text(folder / "dataset_test.txt", "seq9/frame00001.png 0 0 0 1 0 0 0")
    with pytest.raises(UserError, match=r"no camera of seq9/frame00001\.png"):
        cambridge.read(tmp_path)
    model = (folder / "reconstruction.nvm").read_text().splitlines()
    made.write_text(folder / "reconstruction.nvm", *model[:4])
    with pytest.raises(UserError, match="3 photos announced"):
        cambridge.read(tmp_path)
    (folder / "reconstruction.nvm").unlink()
    with pytest.raises(UserError, match=r"reconstruction\.nvm"):
        cambridge.read(tmp_path)
