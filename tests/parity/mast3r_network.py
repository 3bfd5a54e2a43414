"""MASt3R: the network with both its heads, and its released manifest."""

from argparse import Namespace
from pathlib import Path

import torch

from tests.parity.harness import Case, runs
from unposed.io.checkpoints import Checkpoint, read_checkpoint
from unposed.models.mast3r import CLASS_NAME, Mast3r

_NOT_OF_THE_CONSTRUCTOR = ("norm_eps", "note")


def _load(case: Case) -> Mast3r:
    """The case's network, through a file as it is released."""
    keywords = {key: value for key, value in case.config.items() if key not in _NOT_OF_THE_CONSTRUCTOR}
    arguments = ", ".join(f"{key}={tuple(v) if isinstance(v, list) else v!r}" for key, v in keywords.items())
    path = case.scratch / "model.pth"
    torch.save({"model": case.state_dict(), "args": Namespace(model=f"{CLASS_NAME}({arguments})")}, path)
    return Mast3r.from_checkpoint(read_checkpoint(path))


@runs("mast3r", "net_*")
def network(case: Case) -> None:
    model = _load(case)
    symmetric = "image1_img" in case.inputs
    prefix = "image" if symmetric else "view"
    images = [case.tensor(f"{prefix}{k}_img") for k in (1, 2)]
    shapes = [case.tensor(f"{prefix}{k}_true_shape") for k in (1, 2)]
    stride, hook = case.params["desc_stride"], case.params["hook1_index"]
    if symmetric:
        _check_symmetric(case, model, images, stride)
        return
    with torch.no_grad():
        encoded = [model.encode_images(i, s) for i, s in zip(images, shapes, strict=True)]
        layers = model.decode_tokens(*encoded)
        maps = model(*images, *shapes)
    for k, view in enumerate((1, 2)):
        if f"enc{view}" in case.outputs:
            case.check(f"enc{view}", encoded[k].tokens)
            case.check(f"pos{view}", encoded[k].positions)
            case.check(f"dec{view}_last", layers[k][-1])
        if f"dec{view}_hook1" in case.outputs:
            case.check(f"dec{view}_hook1", layers[k][hook])
        case.check(f"view{view}_pts3d", maps[k]["points"])
        case.check(f"view{view}_conf", maps[k]["confidence"])
        case.check(f"view{view}_desc_conf", maps[k]["descriptor_confidence"])
        case.check(f"view{view}_desc_s{stride}", maps[k]["descriptors"][:, ::stride, ::stride])


def _check_symmetric(case: Case, model: Mast3r, images: list[torch.Tensor], stride: int) -> None:
    """Both orders of a pair, every picture encoded once."""
    with torch.no_grad():
        first, second = (model.encode_images(image) for image in images)
        sizes = [tuple(image.shape[-2:]) for image in images]
        for mine, other, sides in (((first, second), (0, 1), ("11", "21")), ((second, first), (1, 0), ("22", "12"))):
            layers = model.decode_tokens(*mine)
            for head, layer, k, side in zip((model.head1, model.head2), layers, other, sides, strict=True):
                maps = model.read_out(head, layer, sizes[k])
                case.check(f"pts3d_{side}", maps["points"])
                case.check(f"conf_{side}", maps["confidence"])
                case.check(f"desc_conf_{side}", maps["descriptor_confidence"])
                case.check(f"desc_{side}_s{stride}", maps["descriptors"][:, ::stride, ::stride])


@runs("mast3r", "released")
def released(case: Case) -> None:
    for name, entry in case.params.items():
        if "parameters" not in entry:  # a retrieval file, which is no network of this kind
            continue
        keywords = {key: value for key, value in entry["config"].items() if key not in _NOT_OF_THE_CONSTRUCTOR}
        everything = {key: torch.empty(shape, device="meta") for key, shape in entry["manifest"].items()}
        for survivor in (0, 1):  # a safetensors export keeps either name of a tied pair
            absent = {pair[1 - survivor] for pair in entry["weights"]["tied"]}
            tensors = {key: tensor for key, tensor in everything.items() if key not in absent}
            model = Mast3r.from_checkpoint(Checkpoint(Path(name), tensors, {"config": keywords}), name)
            dead = sum(
                t.numel() for key, t in tensors.items() if key == "mask_token" or ".refinenet4.resConfUnit1." in key
            )
            assert sum(p.numel() for p in model.parameters()) == entry["parameters"] - dead
