import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import sevenscenes

INTRINSICS, SIZE = (525.0, 525.0, 320.0, 240.0), (640, 480)


def write_scene(root, registered: bool = True):
    folder = root / "heads"
    made.write_text(folder / "TrainSplit.txt", "sequence2")
    made.write_text(folder / "TestSplit.txt", "sequence1")
    for sequence, frames in ((1, (0, 1)), (2, (2,))):
        for k in frames:
            stem = folder / f"seq-{sequence:02d}" / f"frame-{k:06d}"
            made.write_picture(stem.with_name(stem.name + ".color.png"))
            made.write_text(stem.with_name(stem.name + ".pose.txt"), made.words(made.pose(k)))
            words = 1000 * made.depth(made.camera(k, INTRINSICS, SIZE)).numpy()
            words[0, :3] = (0, 65535, 10500)
            made.write_words(stem.with_name(stem.name + (".depth.proj.png" if registered else ".depth.png")), words)


def test_test_frames_are_queries_and_training_frames_references(tmp_path):
    write_scene(tmp_path)
    (scene,) = sevenscenes.read(tmp_path)
    assert scene.name == "heads"
    assert [f.photo.name for f in scene.queries] == [
        "seq-01/frame-000000.color.png",
        "seq-01/frame-000001.color.png",
    ]
    assert [f.photo.name for f in scene.references] == ["seq-02/frame-000002.color.png"]
    torch.testing.assert_close(scene.references[0].camera.world_from_camera.double(), made.pose(2))
    assert scene.queries[0].photo.size == SIZE
    made.assert_same_room(scene.queries[0], scene.references[0])


def test_retrieved_photos_are_read_where_they_are_published(tmp_path):
    write_scene(tmp_path)
    assert sevenscenes.read(tmp_path)[0].retrieved is None
    query, reference = "seq-01/frame-000000.color.png", "seq-02/frame-000002.color.png"
    made.write_text(tmp_path / "heads" / "pairsfile" / "query" / "top20.txt", f"{query}, {reference}, 0.5")
    assert sevenscenes.read(tmp_path)[0].retrieved == {query: (reference,)}


def test_invalid_depth_is_zero(tmp_path):
    write_scene(tmp_path)
    depth = sevenscenes.read(tmp_path)[0].queries[0].depth()
    assert depth[0, :3].tolist() == [0, 0, 0]
    exact = made.depth(made.camera(0, INTRINSICS, SIZE))
    assert abs(depth[100, 50] - exact[100, 50]) < 0.001


def test_depth_of_the_other_camera_is_not_taken_for_registered(tmp_path):
    write_scene(tmp_path, registered=False)
    assert all(frame.depth is None for frame in sevenscenes.read(tmp_path)[0].queries)


def test_sequences_take_every_nth_frame(tmp_path):
    write_scene(tmp_path)
    (sequence,) = sevenscenes.read_sequences(tmp_path, every=2)
    assert sequence.name == "heads/seq-01"
    assert sequence.metric
    assert [f.photo.name for f in sequence.frames] == ["seq-01/frame-000000.color.png"]


def test_nothing_is_opened_before_it_is_asked_for(tmp_path):
    write_scene(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    frame = sevenscenes.read(tmp_path)[0].queries[0]
    with pytest.raises(UserError, match=r"frame-000000\.color\.png"):
        _ = frame.photo.size
    with pytest.raises(UserError, match="16-bit"):
        frame.depth()


def test_what_is_missing_is_named(tmp_path):
    write_scene(tmp_path)
    with pytest.raises(UserError, match="chess"):
        sevenscenes.read(tmp_path, ["chess"])
    (tmp_path / "heads" / "TrainSplit.txt").unlink()
    with pytest.raises(UserError, match=r"TrainSplit\.txt"):
        sevenscenes.read(tmp_path)
    with pytest.raises(UserError, match="7Scenes"):
        sevenscenes.read(tmp_path / "nowhere")
