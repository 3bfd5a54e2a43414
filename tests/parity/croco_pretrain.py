"""CroCo: masked completion and position tables."""

from pathlib import Path
from typing import Any

import torch

from tests.parity.harness import Case, runs
from unposed.io.checkpoints import Checkpoint, read_checkpoint
from unposed.models.croco import Croco, StereoFlow, patchify, unpatchify
from unposed.nets.positions import cosine_table, resize_table, rotary_table, rotate
from unposed.train.croco_losses import masked_mse, patch_statistics


@runs("croco", "pretrain*")
def pretrain(case: Case) -> None:
    path = case.scratch / "croco.pth"
    torch.save({"model": case.state_dict(), "croco_kwargs": case.params["croco_kwargs"]}, path)
    network = Croco.from_checkpoint(read_checkpoint(path))
    images1, images2 = case.tensor("img1"), case.tensor("img2")
    mask = network.random_mask(case.tensor("noise"))
    assert torch.equal(mask, case.tensor("mask").bool())
    assert int(mask[0].sum()) == case.params["num_masked"]

    prediction, target = network(images1, images2, mask), patchify(images1, network.config.patch_size)
    case.check("prediction", prediction)
    case.check("target", target)
    for loss in case.params["losses"]:
        over = mask if loss["masked"] else torch.ones_like(mask)
        case.check(loss["name"], masked_mse(prediction, target, over, loss["norm_pix_loss"]))
    graded = next(loss for loss in case.params["losses"] if loss["name"] == case.params["grad_loss"])
    over = mask if graded["masked"] else torch.ones_like(mask)
    masked_mse(prediction, target, over, graded["norm_pix_loss"]).backward()
    for name in case.params["grad_names"]:
        case.check(f"grad_{name}", network.get_parameter(_our_name(name)).grad)

    layers = network.backbone.encode(images2)
    case.check("enc_unmasked", layers[-1])
    case.check("enc_block0", layers[0])
    mean, deviation = patch_statistics(target)
    stride = case.params["reconstruction_stride"]
    picture = unpatchify(
        prediction * deviation + mean, network.backbone.patch_embed.grid(images1), network.config.patch_size
    )
    case.check(f"reconstruction_s{stride}", picture[..., ::stride, ::stride])


def _our_name(name: str) -> str:
    name = name.replace("enc_blocks.", "encoder.blocks.").replace("enc_norm.", "encoder.norm.")
    return name if name.startswith(("mask_token", "prediction_head")) else f"backbone.{name}"


@runs("croco", "positional")
def positional(case: Case) -> None:
    params = case.params
    case.check("sincos", cosine_table(tuple(params["grid_hw"]), params["embed_dim"]))
    tokens, positions = case.tensor("tokens"), case.tensor("positions")
    for rope in params["rope"]:
        table = rotary_table(positions, tokens.shape[-1], rope["base"])
        case.check(rope["name"], rotate(tokens.transpose(1, 2), table).transpose(1, 2))
    grid = tuple(side // params["patch_size"] for side in params["new_img_size"])
    for name in ("enc", "dec"):
        case.check(f"{name}_interp", resize_table(case.tensor(f"{name}_table"), grid))


@runs("croco", "released")
def released(case: Case) -> None:
    for name, entry in case.params.items():
        manifest = entry["manifest"] or case.params[entry["manifest_of"]]["manifest"]
        tensors = {key: torch.empty(shape, device="meta") for key, shape in manifest.items()}
        checkpoint = Checkpoint(Path(name), tensors, _container(entry))
        network = StereoFlow.from_checkpoint(checkpoint).network if "task" in entry["config"] else None
        network = network or Croco.from_checkpoint(checkpoint)
        dead = sum(tensor.numel() for key, tensor in tensors.items() if ".refinenet4.resConfUnit1." in key)
        assert sum(p.numel() for p in network.parameters()) == entry["parameters"] - dead


def _container(entry: dict[str, Any]) -> dict[str, Any]:
    config = entry["config"]
    names = ("img_size", "enc_embed_dim", "enc_depth", "enc_num_heads", "dec_embed_dim", "dec_depth", "dec_num_heads")
    keywords = {key: config[key] for key in (*names, "pos_embed")}
    if "task" not in config:
        return {} if config["pos_embed"] == "cosine" else {"croco_kwargs": keywords}
    text = {key: config[key] for key in ("task", "criterion", "tile_conf_mode")}
    return {"args": {**text, "crop": config["img_size"], "croco_args": keywords}}
