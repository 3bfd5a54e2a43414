import json

import pytest

from tests.train.datasets.layouts import write_posed_folder
from unposed.errors import UserError
from unposed.train.datasets import DATASETS
from unposed.train.mixtures import open_tests, open_training, read_mixtures

STAGE = """
[small]
resolutions = [[64, 48], [64, 32]]
batch = 2
epochs = 3
warmup_epochs = 1
train = [
    { set = "photos", pairs = 6, aug_crop = 8, folder = "mine" },
    { set = "photos", pairs = 3, folder = "mine", metric = true },
]
test = [
    { set = "photos", pairs = 4, folder = "mine" },
    { set = "photos", pairs = 1, folder = "mine" },
]
"""


def test_dust3r_is_trained_in_three_stages():
    stages = read_mixtures()
    assert list(stages) == ["224-linear", "512-linear", "512-dpt"]
    pairs_a_step = [stage.batch * stage.accumulate * 8 for stage in stages.values()]  # on 8 GPUs
    assert pairs_a_step == [128, 64, 64]
    assert [stage.epochs for stage in stages.values()] == [100, 100, 90]
    assert [stage.warmup_epochs for stage in stages.values()] == [10, 20, 15]
    assert [sum(entry.pairs for entry in stage.train) for stage in stages.values()] == [800_000, 80_000, 80_000]
    jitters = {entry.kind: entry.aug_crop for entry in stages["512-dpt"].train}
    assert jitters == dict.fromkeys(("habitat", "blendedmvs", "megadepth", "co3d"), 16) | dict.fromkeys(
        ("arkitscenes", "scannetpp", "staticthings3d"), 256
    ) | {"waymo": 128}
    masked = {entry.kind for entry in stages["224-linear"].train if entry.options.get("mask_bg") == "rand"}
    assert masked == {"co3d", "staticthings3d"}
    assert stages["512-linear"].resolutions == tuple((512, height) for height in (384, 336, 288, 256, 160))
    assert all(entry.kind in DATASETS for stage in stages.values() for entry in (*stage.train, *stage.test))


def test_missing_sets_are_all_named_at_once(tmp_path):
    (tmp_path / "co3d_processed").mkdir()
    stage = read_mixtures()["224-linear"]
    with pytest.raises(UserError, match=r"habitat_processed.*waymo_processed.*take them out") as raised:
        open_training(stage, tmp_path)
    assert "co3d_processed" not in str(raised.value)


def test_a_mixture_of_ones_own(tmp_path):
    write_posed_folder(tmp_path / "data/mine/room")
    (tmp_path / "mine.toml").write_text(STAGE)
    stage = read_mixtures(tmp_path / "mine.toml")["small"]
    assert stage.accumulate == 1
    loader = open_training(stage, tmp_path / "data")
    assert len(loader) == 9
    batches = list(loader.batches(0))
    assert len(batches) == 4
    assert {batch["views"].shape[-2:] for batch in batches} <= {(48, 64), (32, 64)}
    assert {bool(m) for batch in batches for m in batch["metric"]} == {True, False}
    tests = open_tests(stage, tmp_path / "data")
    assert list(tests) == ["photos", "photos_2"]
    batch = next(tests["photos"].batches(0))
    assert batch["views"].shape == (4, 3, 48, 64)  # two pairs, not exchanged
    assert batch["view_1"].tolist() == [0, 2]
    assert tests["photos_2"].steps() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("batch = 2", "batch = 0"), "batch is 0"),
        (("batch = 2", ""), "lacks 'batch'"),
        (("batch = 2", "batch = 2\nmomentum = 1"), "momentum"),
        (("[64, 48]", "[48, 64]"), "width first"),
        (("[64, 48]", "[64]"), "width first"),
        (("pairs = 6, ", ""), "lacks 'pairs'"),
        (("pairs = 6, ", 'pairs = "all", '), "whole number"),
        (("batch = 2", "batch = "), "cannot be read"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, change, message):
    (tmp_path / "mine.toml").write_text(STAGE.replace(*change))
    with pytest.raises(UserError, match=message):
        read_mixtures(tmp_path / "mine.toml")


def test_unknown_sets_and_options_are_named(tmp_path):
    write_posed_folder(tmp_path / "mine")
    for change, message in (
        (('set = "photos", pairs = 6', 'set = "imagenet", pairs = 6'), "imagenet"),
        (("metric = true", "metrics = true"), "metrics"),
    ):
        (tmp_path / "mine.toml").write_text(STAGE.replace(*change))
        with pytest.raises(UserError, match=message):
            open_training(read_mixtures(tmp_path / "mine.toml")["small"], tmp_path)
    (tmp_path / "mine.toml").write_text(json.dumps({}))
    with pytest.raises(UserError):
        read_mixtures(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text("")
    with pytest.raises(UserError, match="no stage"):
        read_mixtures(tmp_path / "mine.toml")
