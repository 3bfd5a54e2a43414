"""Stereo and flow models by name or file."""

from pathlib import Path

from unposed.errors import UserError
from unposed.models.classic_flow import ClassicFlow, ClassicStereo
from unposed.models.croco_flow import CrocoFlow, CrocoStereo
from unposed.models.flow import FlowModel, StereoModel


def load_stereo_model(model: str | Path, device: str = "auto") -> StereoModel:
    """``classic`` (or ``auto``, which is the same), or the path of a released CroCo-Stereo file.

    Raises:
        UserError: no such model; a file that is damaged, refused, or of another kind.
    """
    if str(model) in ("auto", "classic"):
        return ClassicStereo()
    return CrocoStereo.load(_existing(model, "CroCo-Stereo"), device)


def load_flow_model(model: str | Path, device: str = "auto") -> FlowModel:
    """``classic`` (or ``auto``, which is the same), or the path of a released CroCo-Flow file.

    Raises:
        UserError: no such model; a file that is damaged, refused, or of another kind.
    """
    if str(model) in ("auto", "classic"):
        return ClassicFlow()
    return CrocoFlow.load(_existing(model, "CroCo-Flow"), device)


def _existing(model: str | Path, kind: str) -> Path:
    if not Path(model).is_file():
        raise UserError(f"There is no model or file {str(model)!r}; use classic, or the path of a {kind} checkpoint.")
    return Path(model)
