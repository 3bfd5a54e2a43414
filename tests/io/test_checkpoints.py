import argparse
import contextlib
import io
import json
import math
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from unposed.errors import UserError
from unposed.io.checkpoints import Rename, load_tensors, parse_constructor, read_checkpoint, rename_tensors


@pytest.fixture
def weights():
    return {"a.weight": torch.randn(4, 3), "a.bias": torch.randn(4)}


def test_a_training_file_with_its_arguments(tmp_path, weights):
    path = tmp_path / "model.pth"
    torch.save({"model": weights, "args": argparse.Namespace(model="Net(a=1)", lr=0.1), "epoch": 7}, path)
    checkpoint = read_checkpoint(path)
    assert torch.equal(checkpoint.tensors["a.weight"], weights["a.weight"])
    assert checkpoint.extra["args"] == {"model": "Net(a=1)", "lr": 0.1}
    assert checkpoint.extra["epoch"] == 7


def test_a_bare_state_dict_and_the_old_container(tmp_path, weights):
    path = tmp_path / "model.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    assert set(read_checkpoint(path).tensors) == set(weights)


def test_safetensors_with_metadata_and_hub_folders(tmp_path, weights):
    path = tmp_path / "mini.safetensors"
    save_file(weights, path, metadata={"system": "mini", "config": json.dumps({"depth": 2})})
    checkpoint = read_checkpoint(path)
    assert (checkpoint.extra["system"], checkpoint.extra["config"]) == ("mini", {"depth": 2})

    hub = tmp_path / "hub"
    hub.mkdir()
    save_file(weights, hub / "model.safetensors")
    (hub / "config.json").write_text('{"depth_mode": ["exp", -Infinity, Infinity]}')
    assert read_checkpoint(hub).extra["config"] == {"depth_mode": ["exp", -math.inf, math.inf]}


class _Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("modern", [True, False])
def test_nothing_in_a_file_is_executed(tmp_path, weights, modern):
    victim = tmp_path / "victim"
    path = tmp_path / "model.pth"
    torch.save({"model": weights, "args": _Hostile(victim)}, path, _use_new_zipfile_serialization=modern)
    with pytest.raises(UserError, match=r"model\.pth"):
        read_checkpoint(path)
    assert not victim.exists()


def test_a_plain_pickle_is_not_executed(tmp_path):
    victim = tmp_path / "victim"
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps(_Hostile(victim)))
    with pytest.raises(UserError):
        read_checkpoint(path)
    assert not victim.exists()


def test_an_array_in_the_arguments_is_refused_by_name(tmp_path, weights):
    path = tmp_path / "model.pth"
    torch.save({"model": weights, "args": argparse.Namespace(x=np.float64(2))}, path)
    with pytest.raises(UserError, match="numpy"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_file_cut_off_anywhere(tmp_path, weights, suffix, share):
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save({"model": weights}, path)
    else:
        save_file(weights, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"again"):
        read_checkpoint(path)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), modern=st.booleans())
def test_flipped_bytes_never_end_in_another_error(tmp_path_factory, position, value, modern):
    buffer = io.BytesIO()
    torch.save({"model": {"a": torch.ones(3)}, "n": 1}, buffer, _use_new_zipfile_serialization=modern)
    content = bytearray(buffer.getvalue())
    content[position % len(content)] = value
    path = tmp_path_factory.mktemp("flip") / "model.pth"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        read_checkpoint(path)


def test_files_that_are_no_checkpoints(tmp_path):
    cases = {"picture.pth": b"\xff\xd8\xff\xe0JFIF", "page.safetensors": b"<!doctype html><title>404</title>"}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="again"):
            read_checkpoint(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(UserError, match="no checkpoint"):
        read_checkpoint(tmp_path / "photos.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="state dict"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"model": {}, "epoch": 2}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="no weights"):
        read_checkpoint(tmp_path / "empty.pth")
    with pytest.raises(UserError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "absent.pth")
    (tmp_path / "model.safetensors.incomplete").write_bytes(b"x")
    with pytest.raises(UserError, match="not finished"):
        read_checkpoint(tmp_path / "model.safetensors.incomplete")


@pytest.mark.parametrize("text", ["[1, 2]", "{", "null", "[" * 100_000])
def test_a_configuration_that_is_no_object(tmp_path, weights, text):
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="configuration"):
        read_checkpoint(tmp_path)


def test_constructor_text_is_read_as_literals():
    text = "Net(pos='RoPE100', size=(512, 512), mode=('exp', -inf, inf), conf=None, a=float('inf'), b={'x': [1, -2.5]})"
    name, keywords = parse_constructor(text)
    assert name == "Net"
    assert keywords == {
        "pos": "RoPE100",
        "size": (512, 512),
        "mode": ("exp", -math.inf, math.inf),
        "conf": None,
        "a": math.inf,
        "b": {"x": [1, -2.5]},
    }


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch /tmp/x')",
        "Net(a=__import__('os'))",
        "Net(a=open('x'))",
        "Net(*[1])",
        "Net(**{'a': 1})",
        "Net(1)",
        "Net(a=[x for x in 'ab'])",
        "Net(a=(lambda: 1)())",
        "Net(a='b'.upper())",
        "Net(a=-'b')",
        "Net(a=f'{1}')",
        "Net(a={**{}})",
        "Net; import os",
        "Net(" + "(" * 3000 + ")" * 3000 + ")",
        "",
        "x" * 30_000,
        None,
        3,
    ],
)
def test_constructor_text_that_is_anything_else(text):
    with pytest.raises(UserError):
        parse_constructor(text)


def test_of_two_names_for_one_tensor_the_earlier_row_wins():
    table = (Rename(r"list\.(\d)", r"layer.\1"), Rename(r"layer_(\d)", r"layer.\1"), Rename(r"dead\..*", None))
    one, two = torch.ones(1), torch.zeros(1)
    for tensors in ({"list.0": one, "layer_0": two, "dead.x": two}, {"layer_0": two, "list.0": one}):
        assert rename_tensors(tensors, table) == {"layer.0": one}
    assert rename_tensors({"layer_0": two, "other": one}, table) == {"layer.0": two, "other": one}


def test_loading_names_what_does_not_fit(weights):
    with torch.device("meta"):
        network = nn.ModuleDict({"a": nn.Linear(3, 4)})
    for change, message in (
        ({"a.bias": None}, r"lacks a\.bias"),
        ({"b.weight": torch.ones(1)}, r"holds b\.weight"),
        ({"a.bias": torch.ones(5)}, r"a\.bias .* shape \(5,\), not \(4,\)"),
        ({"a.bias": torch.ones(4, dtype=torch.int64)}, r"a\.bias .*int64"),
    ):
        tensors = {name: tensor for name, tensor in {**weights, **change}.items() if tensor is not None}
        with pytest.raises(UserError, match=message):
            load_tensors(network, tensors, "file")
    load_tensors(network, {name: tensor.half() for name, tensor in weights.items()}, "file")
    assert network["a"].weight.dtype == torch.float32
    torch.testing.assert_close(network["a"].weight, weights["a.weight"], rtol=1e-3, atol=1e-3)
