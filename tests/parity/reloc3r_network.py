"""Reloc3r: the network, its released manifests, and the rotations of its head."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.parity.harness import Case, runs
from unposed.geometry.rotation_projection import rotation_from_6d, rotation_from_9d
from unposed.geometry.transforms import rigid
from unposed.io.checkpoints import Checkpoint, read_checkpoint
from unposed.models.reloc3r import Reloc3r, Reloc3rConfig, is_reloc3r


@runs("reloc3r", "relpose_*")
def network(case: Case) -> None:
    (case.scratch / "config.json").write_text(json.dumps(case.config))
    save_file(case.state_dict(), case.scratch / "model.safetensors")
    model = Reloc3r.from_checkpoint(read_checkpoint(case.scratch))
    images, shapes = [case.tensor(f"img{k}") for k in (1, 2)], [case.tensor(f"true_shape{k}") for k in (1, 2)]
    with torch.no_grad():
        encoded = [model.encode_images(*picture) for picture in zip(images, shapes, strict=True)]
        decoded = model.decode_tokens(*encoded)
        poses = model(*images, *shapes)
    for k, view in enumerate((1, 2)):
        case.check(f"enc{view}", encoded[k].tokens)
        case.check(f"pos{view}", encoded[k].positions)
        case.check(f"dec{view}", decoded[k])
        case.check(f"pose{view}", poses[k])


@runs("reloc3r", "pose_head_rotations*")
def rotations(case: Case) -> None:
    from_9d = rotation_from_9d(case.tensor("r9"))
    torch.testing.assert_close(from_9d @ from_9d.mT, torch.eye(3).expand_as(from_9d), rtol=0, atol=1e-5)
    assert (torch.linalg.det(from_9d) > 0).all()
    for item in case.params["degenerate_items"]:  # any rotation is right there
        from_9d[item] = torch.from_numpy(case.outputs["so3_from_9d"][item])
    case.check("so3_from_9d", from_9d)
    case.check("pose", rigid(from_9d, case.tensor("t")))
    case.check("so3_from_6d", rotation_from_6d(case.tensor("r6")))


@runs("reloc3r", "released")
def released(case: Case) -> None:
    for name, entry in case.params.items():
        if "dec_embed_dim" not in entry["config"]:
            continue  # the network that finds similar photos
        tensors = {key: torch.empty(shape, device="meta") for key, shape in entry["manifest"].items()}
        told = {"config": entry["config"]}
        sizes = replace(Reloc3rConfig.from_keywords(entry["config"]), img_size=Reloc3rConfig().img_size)
        for extra in (told, {}) if sizes == Reloc3rConfig() else (told,):  # a flat file says nothing of its network
            checkpoint = Checkpoint(Path(f"{name}.pth"), tensors, extra)
            assert is_reloc3r(checkpoint)
            model = Reloc3r.from_checkpoint(checkpoint, name)
            assert sum(p.numel() for p in model.parameters()) == entry["parameters"]
            assert model.config.img_size == entry["config"]["img_size"]
