"""From a run's checkpoint to one file that ``load_model`` reads."""

import json
from pathlib import Path

from safetensors.torch import save_file

from unposed.errors import UserError
from unposed.io.atomic import atomic_write
from unposed.train.checkpoint import best_or_last, load_checkpoint
from unposed.train.dust3r_files import write_released


def export_checkpoint(run: Path, file: Path) -> dict[str, str]:
    """Merge the shards of a run into one file that ``load_model`` reads; returns its metadata.

    ``.pth`` is the container in which DUSt3R is released; anything else is safetensors with the metadata ``system``,
    ``config`` (JSON) and ``card`` as the recipe gave them. Of a run that keeps its best weights these are taken.

    Raises:
        UserError: there is no checkpoint, no room, or no such container for this network.
    """
    weights, state = load_checkpoint(best_or_last(run))
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in state["metadata"].items()}
    if file.suffix == ".pth":
        if metadata["system"] != "dust3r":
            raise UserError("only DUSt3R is exported as .pth: give a name that ends in .safetensors.")
        write_released(file, weights, state["metadata"]["config"])
        return metadata
    with atomic_write(file) as temporary:
        save_file(weights, temporary, metadata=metadata)
    return metadata
