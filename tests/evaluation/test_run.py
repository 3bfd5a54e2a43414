"""Whole benchmarks: from a folder to tables, cut and continued, with failures counted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluation.protocols.made import room
from tests.tasks.perfect import PerfectModel, rendered, write_photos
from unposed.errors import UserError
from unposed.evaluation.benchmarks import BENCHMARKS, PHOTOS
from unposed.evaluation.datasets.base import PosedPair, Relocalisation
from unposed.evaluation.datasets.registry import READERS
from unposed.evaluation.published import MEAN, PUBLISHED
from unposed.evaluation.run import evaluate, table
from unposed.geometry.transforms import invert_rigid
from unposed.synth import RenderedViews

_UNIT = 0.001


def write_set(directory: Path, truth: RenderedViews, depth: bool = False) -> None:
    """A photo set as ``unposed eval photos`` reads it: photos, cameras and, asked for, depth."""
    images = {}
    for k, name in enumerate(write_photos(directory, truth)):
        words = (truth.depth[0, k].double().numpy() / _UNIT).round().astype("uint16")
        i, pose = truth.intrinsics[0, k].double(), truth.world_from_camera[0, k].double()
        images[name] = {
            "width": words.shape[1], "height": words.shape[0], "fx": float(i[0, 0]), "fy": float(i[1, 1]),
            "cx": float(i[0, 2]), "cy": float(i[1, 2]), "world_to_camera": invert_rigid(pose).tolist(),
        }  # fmt: skip
        if depth:
            Image.fromarray(words).save(directory / f"{k}_depth.png")
            images[name]["depth"] = f"{k}_depth.png"
    (directory / "gt.json").write_text(json.dumps({"metric": True, "depth_scale": _UNIT, "images": images}))


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, RenderedViews]:
    """Two sets of the same two photos, of one focal length."""
    truth = rendered(2, seed=3)
    for name in ("first", "second"):
        write_set(tmp_path / "sets" / name, truth)
    return tmp_path / "sets", truth


def test_a_perfect_model_has_no_error_and_tables_say_so(sets: tuple[Path, RenderedViews], tmp_path: Path) -> None:
    root, truth = sets
    for directory in root.iterdir():
        shutil.rmtree(directory)
        write_set(directory, truth, depth=True)
    perfect, baseline = evaluate(PHOTOS, root, model=PerfectModel(truth), out=tmp_path / "out", baseline=True)
    assert [row["name"] for row in perfect.rows] == ["first", "second"]
    assert perfect.summary["failed"] == 0
    assert perfect.summary["auc@5"] > 0.99
    assert perfect.summary["rotation_median_deg"] < 0.01
    assert perfect.summary["focal_error_median"] < 0.001
    assert perfect.summary["joint_AbsRel"] < 0.01
    assert perfect.summary["single_AbsRel"] < 0.01
    assert baseline.summary["single_AbsRel"] > 0.1
    assert 0 <= baseline.summary["auc@5"] <= 1
    record = json.loads((tmp_path / "out" / "photos.json").read_text())
    assert record["methods"]["perfect"]["summary"]["auc@5"] == perfect.summary["auc@5"]
    text = (tmp_path / "out" / "photos.md").read_text()
    assert "| **mean** | perfect |" in text
    assert "| first | baseline |" in text
    assert "perfect: 2 evaluated, 0 failed" in text


def test_one_set_by_itself_and_by_name(sets: tuple[Path, RenderedViews]) -> None:
    root, truth = sets
    (alone,) = evaluate(PHOTOS, root / "first", model=PerfectModel(truth))
    (named,) = evaluate(PHOTOS, root, model=PerfectModel(truth), scenes=["second"])
    (limited,) = evaluate(PHOTOS, root, model=PerfectModel(truth), limit=1)
    assert [row["name"] for outcome in (alone, named, limited) for row in outcome.rows] == ["first", "second", "first"]


def test_a_run_that_was_killed_computes_only_what_is_missing(sets: tuple[Path, RenderedViews], tmp_path: Path) -> None:
    root, truth = sets
    whole = PerfectModel(truth)
    evaluate(PHOTOS, root, model=whole)
    cut, continued, again = PerfectModel(truth), PerfectModel(truth), PerfectModel(truth)
    cut.stop_after = len(whole.decoded) // 2  # of two equal sets the first is done
    with pytest.raises(KeyboardInterrupt):
        evaluate(PHOTOS, root, model=cut, out=tmp_path / "out")
    (outcome,) = evaluate(PHOTOS, root, model=continued, out=tmp_path / "out")
    assert len(continued.decoded) == len(whole.decoded) // 2
    assert [row["name"] for row in outcome.rows] == ["first", "second"]
    (same,) = evaluate(PHOTOS, root, model=again, out=tmp_path / "out")
    assert again.decoded == []
    assert same.summary == outcome.summary


def test_a_set_that_fails_is_counted_as_the_worst(sets: tuple[Path, RenderedViews], tmp_path: Path) -> None:
    root, truth = sets
    model = PerfectModel(truth)
    encode, calls = model.encode, []

    def out_of_memory_at_first(views):
        calls.append(len(views))
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return encode(views)

    model.encode = out_of_memory_at_first
    (outcome,) = evaluate(PHOTOS, root, model=model, out=tmp_path / "out")
    first, second = outcome.rows
    assert first["error"] == "RuntimeError: out of memory"
    assert (first["registered"], first["rotation_median_deg"]) == (0, 180)
    assert "error" not in second
    assert outcome.summary["failed"] == 1
    assert outcome.summary["auc@5"] == pytest.approx(second["auc@5"] / 2)
    assert "out of memory" in (tmp_path / "out" / "photos.md").read_text()


@pytest.mark.parametrize(
    ("name", "folder", "options", "words"),
    [
        ("imagenet", ".", {}, "no benchmark called imagenet; choose one of photos, 7scenes"),
        (PHOTOS, "nowhere", {}, "no folder"),
        (PHOTOS, ".", {}, "holds no gt.json"),
        (PHOTOS, ".", {"limit": 0}, "--limit of at least 1"),
        ("sintel-path", ".", {"baseline": True}, "has no baseline"),
        ("scannet1500", ".", {}, "test.npz"),
        ("tum-path", ".", {"reader": "7scenes"}, "cannot be read by 7scenes; readers that fit are"),
        ("kitti-depth", ".", {"reader": "kitti-gathered"}, "groundtruth_depth_gathered"),
    ],
)
def test_what_cannot_be_run_is_said(tmp_path: Path, name: str, folder: str, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        evaluate(name, tmp_path / folder, **options)


def test_results_of_another_folder_are_not_continued(sets: tuple[Path, RenderedViews], tmp_path: Path) -> None:
    root, truth = sets
    evaluate(PHOTOS, root / "first", model=PerfectModel(truth), out=tmp_path / "out")
    with pytest.raises(UserError, match="another root"):
        evaluate(PHOTOS, root, model=PerfectModel(truth), out=tmp_path / "out")


def test_every_benchmark_has_its_reader_and_published_numbers_have_their_columns() -> None:
    model = PerfectModel(rendered(2))
    for benchmark in BENCHMARKS.values():
        assert benchmark.reader in {PHOTOS, *READERS}, benchmark.name
        protocol = benchmark.protocol(model)
        assert callable(protocol.score)
        assert len(set(benchmark.columns)) == len(benchmark.columns)
    for name, rows in PUBLISHED.items():
        for row in rows:
            assert row.values.keys() <= set(BENCHMARKS[name].columns), name


def test_published_numbers_stand_below_ours() -> None:
    benchmark = BENCHMARKS["nyu-depth"]
    lines = table(benchmark, []).splitlines()
    assert lines[0].startswith("| name | method | frames | AbsRel | delta1 |")
    assert lines[-1].startswith(f"| {MEAN} | DUSt3R 512 (published) |  | 0.065 | 0.9409 |")


def test_disparity_becomes_depth(tmp_path: Path, sets: tuple[Path, RenderedViews]) -> None:
    from unposed.evaluation.photo_sets import read

    root, _ = sets
    path = root / "first" / "gt.json"
    truth = json.loads(path.read_text())
    words = torch.tensor([[0, 256], [512, 1024]], dtype=torch.int32).numpy().astype("uint16")
    Image.fromarray(words).save(root / "first" / "0_disparity.png")
    row = truth["images"]["0.png"]
    row |= {"disparity": "0_disparity.png", "fx": 100.0}
    path.write_text(json.dumps(truth | {"baseline_m": 0.5, "doffs_px_at_stored_size": 6.0, "disparity_scale": 1 / 256}))
    (sequence,) = read(root / "first")
    assert sequence.frames[0].depth is not None
    torch.testing.assert_close(sequence.frames[0].depth(), torch.tensor([[0, 50 / 7], [50 / 8, 5.0]]))
    path.write_text(json.dumps({"images": truth["images"], "disparity_scale": 1 / 256}))
    with pytest.raises(UserError, match="baseline_m"):
        read(root / "first")[0].frames[0].depth()


def write_scannet_video(root: Path, truth: RenderedViews) -> None:
    """A scene as ScanNet's reader takes it; every third frame is one of the rendered ones."""
    scene = root / "scene0707_00"
    write_photos(scene / "rendered", truth)
    for folder in ("color", "depth", "pose", "intrinsic"):
        (scene / folder).mkdir()
    for k in range(truth.images.shape[1]):
        for number in range(3 * k, 3 * k + 3):
            with Image.open(scene / "rendered" / f"{k}.png") as photo:
                photo.save(scene / "color" / f"{number}.jpg", quality=95)
            words = (truth.depth[0, k].double().numpy() * 1000).round().astype("uint16")
            Image.fromarray(words).save(scene / "depth" / f"{number}.png")
            np.savetxt(scene / "pose" / f"{number}.txt", truth.world_from_camera[0, k].double().numpy())
    matrix = np.eye(4)
    matrix[:3, :3] = truth.intrinsics[0, 0].numpy()
    np.savetxt(scene / "intrinsic" / "intrinsic_color.txt", matrix)


@pytest.mark.parametrize(
    ("name", "column", "most"),
    [
        ("scannet-video-path", "absolute", 0.05),
        ("scannet-video-key-depth", "rel", 1.0),
    ],
)
def test_from_the_layout_of_a_data_set_to_its_numbers(tmp_path: Path, name: str, column: str, most: float) -> None:
    truth = rendered(4)
    write_scannet_video(tmp_path, truth)
    model = PerfectModel(truth)
    model._cameras = {f"scene0707_00/{3 * k}.jpg": camera for k, camera in enumerate(model._cameras.values())}
    (outcome,) = evaluate(name, tmp_path, model=model, out=tmp_path / "out")
    assert outcome.summary["failed"] == 0
    assert outcome.summary[column] < most
    assert (tmp_path / "out" / f"{name}.md").is_file()


def give(monkeypatch: pytest.MonkeyPatch, reader: str, *items: object) -> None:
    """Let a reader give these items, whatever the folder holds."""
    monkeypatch.setitem(READERS, reader, replace(READERS[reader], read=lambda root, scenes=None: items))


def test_pairs_by_a_model_and_by_the_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, sequence = room(tmp_path / "photos", views=2)
    a, b = sequence.frames
    b_from_a = invert_rigid(b.camera.world_from_camera) @ a.camera.world_from_camera
    pair = PosedPair("a b", a, b, b_from_a)
    give(monkeypatch, "scannet1500", pair, PosedPair("b a", b, a, invert_rigid(b_from_a)))
    model = PerfectModel(truth)
    perfect, baseline = evaluate("scannet1500", tmp_path, model=model, out=tmp_path / "out", baseline=True)
    assert perfect.summary["AUC@5"] > 80
    assert {row["name"] for row in baseline.rows} == {"a b", "b a"}
    assert "| **mean** | baseline |" in (tmp_path / "out" / "scannet1500.md").read_text()


def test_hidden_poses_are_written_for_their_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, sequence = room(tmp_path / "photos", views=4)
    query = sequence.frames[3]
    hidden = replace(query, camera=None, intrinsics=query.camera.intrinsics)
    give(monkeypatch, "aachen", Relocalisation("day", sequence.frames[:3], (hidden,), {}))
    evaluate("aachen", tmp_path, model=PerfectModel(truth), out=tmp_path / "out")
    assert (tmp_path / "out" / "aachen.perfect.txt").read_text() == "3.png 1 0 0 0 0 0 0\n"  # no references: not placed
    give(monkeypatch, "aachen", Relocalisation("day", sequence.frames[:3], (hidden,)))
    evaluate("aachen", tmp_path, model=PerfectModel(truth), out=tmp_path / "placed")
    name, *numbers = (tmp_path / "placed" / "aachen.perfect.txt").read_text().split()
    assert name == "3.png"
    wanted = query.camera.camera_from_world[:3, 3].tolist()
    assert [float(number) for number in numbers[4:]] == pytest.approx(wanted, abs=0.1)


def test_auto_takes_another_model_for_single_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sequence = room(tmp_path / "photos", views=1)
    give(monkeypatch, "nyu", sequence)
    (outcome,) = evaluate("nyu-depth", tmp_path, out=tmp_path / "out")
    assert outcome.method == "auto"
    assert outcome.rows[0]["frames_without_depth"] == 0
    (classic,) = evaluate("nyu-depth", tmp_path, model="classic")
    assert classic.rows[0]["frames_without_depth"] == 1
    assert classic.summary["AbsRel"] == 1
