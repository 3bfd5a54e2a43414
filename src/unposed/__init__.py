"""3D from photos nobody calibrated: cameras, depth, points and matches.

>>> import unposed
>>> scene = unposed.reconstruct("photos/")
>>> scene.cameras["a.jpg"].world_from_camera
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unposed.errors import UserError
    from unposed.models.registry import list_models, load_model
    from unposed.scene import Scene
    from unposed.tasks.add import add
    from unposed.tasks.depth import Depth, depth
    from unposed.tasks.flow import Flow, flow
    from unposed.tasks.intrinsics import Intrinsics, intrinsics
    from unposed.tasks.localize import localize
    from unposed.tasks.localizer import Localisation
    from unposed.tasks.match import CollectionMatches, PhotoMatches, match, match_photos
    from unposed.tasks.pose import relative_pose
    from unposed.tasks.reconstruct import Known, reconstruct
    from unposed.tasks.stereo import Stereo, stereo
    from unposed.views import RelativePose

__version__ = "0.1.0"

__all__ = [
    "CollectionMatches",
    "Depth",
    "Flow",
    "Intrinsics",
    "Known",
    "Localisation",
    "PhotoMatches",
    "RelativePose",
    "Scene",
    "Stereo",
    "UserError",
    "add",
    "depth",
    "flow",
    "intrinsics",
    "list_models",
    "load_model",
    "localize",
    "match",
    "match_photos",
    "reconstruct",
    "relative_pose",
    "stereo",
]

_HOMES = {
    "add": "unposed.tasks.add",
    "Intrinsics": "unposed.tasks.intrinsics",
    "intrinsics": "unposed.tasks.intrinsics",
    "Depth": "unposed.tasks.depth",
    "depth": "unposed.tasks.depth",
    "Flow": "unposed.tasks.flow",
    "flow": "unposed.tasks.flow",
    "Stereo": "unposed.tasks.stereo",
    "stereo": "unposed.tasks.stereo",
    "Known": "unposed.tasks.reconstruct",
    "Scene": "unposed.scene",
    "UserError": "unposed.errors",
    "list_models": "unposed.models.registry",
    "load_model": "unposed.models.registry",
    "Localisation": "unposed.tasks.localizer",
    "localize": "unposed.tasks.localize",
    "CollectionMatches": "unposed.tasks.match",
    "PhotoMatches": "unposed.tasks.match",
    "match": "unposed.tasks.match",
    "match_photos": "unposed.tasks.match",
    "RelativePose": "unposed.views",
    "relative_pose": "unposed.tasks.pose",
    "reconstruct": "unposed.tasks.reconstruct",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that ``import unposed`` and ``unposed --help`` are quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unposed' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
