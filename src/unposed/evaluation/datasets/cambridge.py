"""Cambridge Landmarks (Kendall et al., ICCV 2015): five outdoor places, 1920x1080, metres.

``<root>/<Scene>/{reconstruction.nvm,dataset_train.txt,dataset_test.txt}`` and ``<Scene>/seq1/frame00001.png``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, Relocalisation
from unposed.evaluation.datasets.files import LazyPhoto, subfolders, text_lines
from unposed.evaluation.datasets.kapture import published_pairs
from unposed.evaluation.datasets.poses import pose_from_quaternion, posed_camera
from unposed.geometry.transforms import invert_rigid
from unposed.views import Camera

SCENES = ("GreatCourt", "KingsCollege", "OldHospital", "ShopFacade", "StMarysChurch")
"""The places that are reported; Street is left out."""
_SIZE = (1920, 1080)


def read(root: Path, scenes: Sequence[str] | None = None) -> list[Relocalisation]:
    """Test photos against training photos, a place each, with cameras of the NVM model.

    A list of retrieved photos is taken from ``<Scene>/pairsfile/query/*.txt`` where it is there.

    Its radial distortion (a few pixels) is not modelled, as usual on this data set.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    places = []
    for folder in subfolders(Path(root), scenes, "a place of Cambridge Landmarks", "reconstruction.nvm"):
        cameras = _read_nvm(folder / "reconstruction.nvm")
        references, queries = (_frames(folder, cameras, f"dataset_{part}.txt") for part in ("train", "test"))
        places.append(Relocalisation(folder.name, references, queries, published_pairs(folder)))
    return places


def _frames(folder: Path, cameras: Mapping[str, Camera | None], split: str) -> tuple[Frame, ...]:
    """The photos of a split; its three lines of header are no lines of eight words."""
    frames = []
    for line in text_lines(folder / split, 'lines "seq1/frame00001.png X Y Z W P Q R"'):
        words = line.split()
        if len(words) != 8 or PurePosixPath(words[0]).suffix not in (".png", ".jpg"):
            continue
        name = str(PurePosixPath(words[0]).with_suffix(".png"))
        if name not in cameras:
            raise UserError(f"{folder / 'reconstruction.nvm'} has no camera of {name}, which {split} lists.")
        frames.append(Frame(LazyPhoto(name, folder / name), cameras[name]))
    if not frames:
        raise UserError(f"{folder / split} lists no photos; download it again.")
    return tuple(frames)


def _read_nvm(path: Path) -> dict[str, Camera | None]:
    """Cameras of a VisualSFM model: "name focal qw qx qy qz cx cy cz k 0" a line after the number of photos.

    The quaternion is world to camera, c is the camera's CENTRE (not the translation), and the principal point is the
    centre of the photo. Names end in .jpg, the files in .png.
    """
    lines = text_lines(path, "a VisualSFM model (NVM_V3)")
    cameras = {}
    try:
        count = int(lines[1])
        if len(lines) < 2 + count:
            raise ValueError(f"{count} photos announced, {len(lines) - 2} lines")
        for line in lines[2 : 2 + count]:
            name, *words = line.split()
            focal, *numbers = (float(word) for word in words)
            pose = invert_rigid(pose_from_quaternion(numbers[:4], (0.0, 0.0, 0.0)))
            pose[:3, 3] = pose.new_tensor(numbers[4:7])
            centre = ((_SIZE[0] - 1) / 2, (_SIZE[1] - 1) / 2)
            photo = str(PurePosixPath(name).with_suffix(".png"))
            cameras[photo] = posed_camera((focal, focal, *centre), pose, _SIZE)
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is no VisualSFM model or is cut ({error}); download it again.") from error
    return cameras
