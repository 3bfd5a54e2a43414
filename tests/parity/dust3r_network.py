"""DUSt3R: the network, its released manifests, and the activations of its heads."""

from argparse import Namespace
from pathlib import Path

import torch

from tests.parity.harness import Case, runs
from unposed.io.checkpoints import Checkpoint, read_checkpoint
from unposed.models.dust3r import Dust3r
from unposed.nets.heads import regress_confidence, regress_points


@runs("dust3r", "net_*")
def network(case: Case) -> None:
    path = case.scratch / "model.pth"
    torch.save({"model": case.state_dict(), "args": Namespace(model=case.params["model_text"]), "epoch": 1}, path)
    model = Dust3r.from_checkpoint(read_checkpoint(path))
    images, shapes = [case.tensor(f"view{k}") for k in (1, 2)], [case.tensor(f"true_shape{k}") for k in (1, 2)]
    with torch.no_grad():
        encoded = model.encode_pair(*images, *shapes, symmetrized=case.params["symmetrized"])
        layers = model.decode_tokens(*encoded)
        maps = model(*images, *shapes, symmetrized=case.params["symmetrized"])
    for k, view in enumerate((1, 2)):
        case.check(f"enc{view}", encoded[k].tokens)
        case.check(f"pos{view}", encoded[k].positions)
        case.check(f"dec{view}_first", layers[k][1])
        case.check(f"dec{view}_last", layers[k][-1])
        case.check(f"view{view}_pts3d", maps[k]["points"])
        if model.config.conf_mode is not None:
            case.check(f"view{view}_conf", maps[k]["confidence"])


@runs("dust3r", "postprocess")
def postprocess(case: Case) -> None:
    raw = case.tensor("raw").movedim(1, -1)
    for run in case.params["runs"]:
        if run["returns"] == "conf":
            case.check(run["name"], regress_confidence(raw[..., 3], run["conf_mode"]))
        else:
            case.check(run["name"], regress_points(raw[..., :3], run["depth_mode"]))


@runs("dust3r", "released")
def released(case: Case) -> None:
    for name, entry in case.params.items():
        containers = {"pth": set(), "safetensors": set(entry["safetensors_absent"])}
        for absent in containers.values():
            tensors = {
                key: torch.empty(shape, device="meta") for key, shape in entry["manifest"].items() if key not in absent
            }
            keywords = {key: value for key, value in entry["config"].items() if key not in ("note", "norm_eps")}
            network = Dust3r.from_checkpoint(Checkpoint(Path(name), tensors, {"config": keywords}), name)
            dead = sum(
                tensors[key].numel() for key in tensors if key == "mask_token" or ".refinenet4.resConfUnit1." in key
            )
            assert sum(p.numel() for p in network.parameters()) == entry["parameters"] - dead
