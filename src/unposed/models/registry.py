"""Models by name: what there is, where released weights live, under which licence, and how to get one loaded."""

import difflib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch

from unposed.errors import UserError
from unposed.io.checkpoints import Checkpoint, parse_constructor, read_checkpoint
from unposed.models import mast3r, mini
from unposed.models.base import MonocularModel, PairModel, PoseModel
from unposed.models.croco import Croco, StereoFlow
from unposed.models.dust3r import Dust3r
from unposed.models.mini import Mini
from unposed.models.moge import Moge, is_moge
from unposed.models.reloc3r import Reloc3r, is_reloc3r
from unposed.nets.precision import choose_device, choose_dtype, prepare_for_inference

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
MOGE_FILE = "model.pt"
OUR_LICENCE = "Apache-2.0"
FAMILY_LICENCE = "CC BY-NC-SA 4.0 (non-commercial), plus the licences of the training sets"
CROCO_LICENCE = "CC BY-NC-SA 4.0 (non-commercial)"
RELOC3R_LICENCE = "CC BY-NC-SA 4.0 (non-commercial)"
MOGE_LICENCE = "MIT with the code (DINOv2 part Apache-2.0); nothing separate is stated for the weights"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DUST3R_CLASS = "AsymmetricCroCo3DStereo"


AnyModel = PairModel | MonocularModel | PoseModel
"""What ``load_model`` gives: pointmaps of pairs, the geometry of single views, or the poses of pairs."""


@dataclass(frozen=True)
class ModelRow:
    """A model that ``load_model`` knows by name, or a released file that it knows by path."""

    name: str
    system: str
    licence: str
    """Of the weights."""
    parameters: int
    """In millions; 0 where there are no weights."""
    repository: str | None = None
    """On huggingface.co; None for what ships with the package and for files that have no repository."""
    file: str | None = None
    """In the repository, or as its authors call it."""
    config: str = "file metadata"
    """Where the network's sizes are written."""

    @property
    def megabytes(self) -> int:
        """Size of the download (float32 weights)."""
        return 4 * self.parameters if self.file else 0

    @property
    def downloads(self) -> tuple[str, ...]:
        """Files of the repository that are needed; the last one holds the weights."""
        return (self.file,) if self.file and self.config != CONFIG else (CONFIG, WEIGHTS)


class ListedModel(NamedTuple):
    """A row as shown to a user."""

    name: str
    system: str
    parameters_million: int
    megabytes: int
    licence: str
    source: str
    """Where the weights come from."""
    cached: bool
    """Whether it can be used now, without a download."""


def _moge(name: str, parameters: int) -> ModelRow:
    config = "model_config in the file"
    return ModelRow(name, "moge", MOGE_LICENCE, parameters, f"Ruicheng/{name}", MOGE_FILE, config)


def _dust3r(name: str, repository: str, parameters: int) -> ModelRow:
    return ModelRow(name, "dust3r", FAMILY_LICENCE, parameters, f"naver/{repository}", WEIGHTS, CONFIG)


MODELS = (
    ModelRow("mini", "composed", OUR_LICENCE, 2),
    ModelRow("classic", "classic", OUR_LICENCE, 0, config="none: no weights"),
    _dust3r("dust3r-224-linear", "DUSt3R_ViTLarge_BaseDecoder_224_linear", 532),
    _dust3r("dust3r-512-linear", "DUSt3R_ViTLarge_BaseDecoder_512_linear", 532),
    _dust3r("dust3r-512-dpt", "DUSt3R_ViTLarge_BaseDecoder_512_dpt", 571),
    ModelRow(
        "mast3r",
        "mast3r",
        f"{FAMILY_LICENCE}, of which Map-free's is the narrowest",
        689,
        "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric",
        WEIGHTS,
        CONFIG,
    ),
    ModelRow("reloc3r-512", "reloc3r", RELOC3R_LICENCE, 427, "siyan824/reloc3r-512", WEIGHTS, CONFIG),
    ModelRow("reloc3r-224", "reloc3r", RELOC3R_LICENCE, 427, "siyan824/reloc3r-224", WEIGHTS, CONFIG),
    _moge("moge-vitl", 314),
    _moge("moge-2-vitl", 326),
    _moge("moge-2-vitl-normal", 331),
    _moge("moge-2-vitb-normal", 105),
    _moge("moge-2-vits-normal", 35),
)
"""Everything ``load_model`` takes by name."""

CROCO_FILES = (
    *(
        ModelRow(file.removesuffix(".pth"), "croco", CROCO_LICENCE, parameters, None, file, "croco_kwargs in the file")
        for file, parameters in (
            ("CroCo.pth", 120),
            ("CroCo_V2_ViTBase_SmallDecoder.pth", 120),
            ("CroCo_V2_ViTBase_BaseDecoder.pth", 200),
            ("CroCo_V2_ViTLarge_BaseDecoder.pth", 418),
        )
    ),
    *(
        ModelRow(file.removesuffix(".pth"), "croco", CROCO_LICENCE, parameters, None, file, "args in the file")
        for file, parameters in (
            ("crocostereo.pth", 437),
            ("crocostereo_subtrain.pth", 437),
            ("crocostereo_eth3d.pth", 437),
            ("crocostereo_finetune_kitti.pth", 437),
            ("crocostereo_finetune_spring.pth", 437),
            ("crocostereo_subtrain_vitb_smalldecoder.pth", 139),
            ("crocostereo_subtrain_vitb_basedecoder.pth", 220),
            ("crocoflow.pth", 437),
            ("crocoflow_finetune_kitti.pth", 437),
            ("crocoflow_finetune_spring.pth", 437),
            ("crocoflow_vitb_smalldecoder.pth", 139),
            ("crocoflow_vitb_basedecoder.pth", 220),
        )
    ),
)
"""Released CroCo files; their authors' server has them, ``load_croco`` reads them by path."""


def list_models() -> list[ListedModel]:
    """Every model that ``load_model`` takes by name, and whether it needs a download first."""
    return [
        ListedModel(
            row.name,
            row.system,
            row.parameters,
            row.megabytes,
            row.licence,
            f"huggingface.co/{row.repository}" if row.repository else "in the package",
            _available(row),
        )
        for row in MODELS
    ]


def load_model(model: str | Path, device: str = "auto", dtype: str = "auto") -> AnyModel:
    """A model by registry name, hub id (``owner/name``), or path of a checkpoint file or hub folder.

    Released weights are downloaded once, with their licence shown on stderr before. ``device`` is ``auto``, ``cpu`` or
    ``cuda``; ``dtype`` is ``auto`` (bfloat16 where the processor is faster with it), ``float32`` or ``bfloat16``.

    Raises:
        UserError: no such model; a download that fails; a file that is damaged, refused, or of another kind.
    """
    target = choose_device(device)
    number_format = choose_dtype(dtype, target)
    name = str(model)
    if name == "classic":
        from unposed.models.classic import Classic

        return Classic()
    loaded = _load_by_name(name, target)
    if isinstance(loaded, torch.nn.Module):
        prepare_for_inference(loaded, target, number_format)
    return loaded


def load_croco(path: str | Path, device: str = "auto", dtype: str = "auto") -> Croco | StereoFlow:
    """A released CroCo file: the pre-training network, or stereo or flow with its way of use.

    Raises:
        UserError: the file is damaged, refused, or of another kind.
    """
    checkpoint = read_checkpoint(path)
    arguments = checkpoint.extra.get("args")
    downstream = isinstance(arguments, dict) and arguments.get("task") is not None
    loaded = StereoFlow.from_checkpoint(checkpoint) if downstream else Croco.from_checkpoint(checkpoint)
    target = choose_device(device)
    network = loaded.network if isinstance(loaded, StereoFlow) else loaded
    prepare_for_inference(network, target, choose_dtype(dtype, target))
    return loaded


def _load_by_name(name: str, device: torch.device) -> AnyModel:
    row = next((row for row in MODELS if row.name == name or (row.repository or "").lower() == name.lower()), None)
    if row is not None and row.repository is None:
        return _from_checkpoint(_shipped(name), name, device)
    if row is not None and row.repository is not None:
        return _from_checkpoint(_from_hub(row.repository, row), row.name, device)
    if Path(name).exists():
        return _from_checkpoint(read_checkpoint(name), Path(name).stem, device)
    if _HUB_ID.fullmatch(name) and not name.endswith((".pth", ".safetensors", ".pt")):
        return _from_checkpoint(_from_hub(name, None), name.split("/")[1], device)
    names = [row.name for row in MODELS]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"use {', '.join(names)}, a hub id, or the path of a checkpoint."
    raise UserError(f"There is no model or file {name!r}; {hint}")


def _from_checkpoint(checkpoint: Checkpoint, name: str, device: torch.device) -> AnyModel:
    """The network of a file, by what the file says of itself."""
    system = checkpoint.extra.get("system")
    if system == mini.SYSTEM:
        return Mini.from_checkpoint(checkpoint, name)
    if system == "composed":
        from unposed.models.composed import Composed

        return Composed.from_checkpoint(checkpoint, device, name)
    if is_moge(checkpoint.extra):
        return Moge.from_checkpoint(checkpoint, name)
    if is_reloc3r(checkpoint):
        return Reloc3r.from_checkpoint(checkpoint, name)
    arguments, config = checkpoint.extra.get("args"), checkpoint.extra.get("config")
    built = parse_constructor(arguments.get("model", "_()"))[0] if isinstance(arguments, dict) else None
    hub = config if isinstance(config, dict) and "head_type" in config else {}
    if built == mast3r.CLASS_NAME or "+desc" in hub.get("output_mode", ""):
        return mast3r.Mast3r.from_checkpoint(checkpoint, name)
    if built == _DUST3R_CLASS or hub:
        return Dust3r.from_checkpoint(checkpoint, name)
    if "croco_kwargs" in checkpoint.extra or "prediction_head.weight" in checkpoint.tensors:
        raise UserError(f"{checkpoint.path} is a CroCo network, which makes no pointmaps; read it with load_croco.")
    raise UserError(f"{checkpoint.path} is no checkpoint of a model that this version knows; see `unposed models`.")


def _shipped_files() -> list[Path]:
    folder = Path(str(files("unposed") / "weights"))
    return sorted(folder.glob("mini*.safetensors"))


def _shipped(name: str) -> Checkpoint:
    parts = [read_checkpoint(path) for path in _shipped_files()]
    if not parts:
        raise UserError(f"This installation has no weights of {name!r}; use classic, or the path of a checkpoint.")
    tensors = {key: tensor for part in parts for key, tensor in part.tensors.items()}
    return replace(parts[0], tensors=tensors)


def _available(row: ModelRow) -> bool:
    if row.repository is not None:
        return _cached(row.repository, row.downloads) is not None
    return row.name == "classic" or bool(_shipped_files())


def _cached(repository: str, names: tuple[str, ...]) -> Path | None:
    """The last of the named files of a repository in the hub's cache, if all are there."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repository, name) for name in names]
    return Path(str(found[-1])) if all(isinstance(path, str) for path in found) else None


def _from_hub(repository: str, row: ModelRow | None) -> Checkpoint:
    """Read a repository's weights from the hub's cache, after a download where they are not in it."""
    names = row.downloads if row else (CONFIG, WEIGHTS)
    weights = _cached(repository, names)
    if weights is None:
        with _download_errors(repository, names):
            weights = _download(repository, names, row.licence if row else "see its model card")
    return read_checkpoint(weights)


def _download(repository: str, names: tuple[str, ...], licence: str) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    size = get_hf_file_metadata(hf_hub_url(repository, names[-1])).size or 0  # asked once; the download itself retries
    print(f"Downloading {repository}, {size / 1e6:.0f} MB. Licence of the weights: {licence}.", file=sys.stderr)
    return [Path(hf_hub_download(repository, name)) for name in names][-1]


@contextmanager
def _download_errors(repository: str, names: tuple[str, ...]) -> Iterator[None]:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise UserError(f"{repository} wants consent: accept its terms on huggingface.co and log in.") from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(repository, names) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"There is no model {repository!r} on the hub; check its name.") from error
    except EntryNotFoundError as error:
        raise UserError(
            f"{repository} lacks {' or '.join(names)}; download its checkpoint and give the path."
        ) from error
    except Exception as error:  # the hub's client lets the errors of its HTTP library through
        raise _unreachable(repository, names) from error


def _unreachable(repository: str, names: tuple[str, ...]) -> UserError:
    return UserError(
        f"The weights of {repository} are not on this machine and could not be downloaded; connect to the internet, or "
        f"copy {' and '.join(names)} from another machine and give the path of {names[-1]}."
    )
