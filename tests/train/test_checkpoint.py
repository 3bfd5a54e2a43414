import torch

from unposed.train import checkpoint
from unposed.train.checkpoint import load_checkpoint, save_checkpoint


def test_shards_are_small_and_come_back_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 2**16 + 4096)
    weights = {f"layer{k}.weight": torch.randn(32, 20 + k) for k in range(9)} | {"large": torch.randn(100, 100)}
    weights["count"] = torch.tensor(7)
    save_checkpoint(tmp_path, weights, {"step": 3})
    shards = sorted((tmp_path / "checkpoint").glob("*.safetensors"))
    assert len(shards) > 3
    assert all(s.stat().st_size < 2**16 + 4096 for s in shards if s.stat().st_size < 20_000)
    loaded, state = load_checkpoint(tmp_path)
    assert state == {"step": 3}
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(loaded[name].to(tensor.dtype), tensor, rtol=1e-3, atol=1e-3)


def test_an_older_checkpoint_is_replaced_as_a_whole(tmp_path):
    save_checkpoint(tmp_path, {"a": torch.ones(4), "b": torch.ones(2)}, {"step": 1})
    save_checkpoint(tmp_path, {"a": torch.zeros(4)}, {"step": 2})
    weights, state = load_checkpoint(tmp_path / "checkpoint")
    assert set(weights) == {"a"}
    assert state["step"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]
