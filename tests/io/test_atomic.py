"""Files and folders appear whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unposed.errors import UserError
from unposed.io.atomic import atomic_directory, atomic_write, restore_directory

MARKER = "scene.json"


def write_scene(path: Path, text: str) -> None:
    with atomic_directory(path, MARKER) as folder:
        (folder / MARKER).write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "maps").write_text(text)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestFile:
    def test_a_file_is_made_with_its_folders(self, tmp_path):
        with atomic_write(tmp_path / "a" / "b" / "c.ply") as temporary:
            assert temporary.suffix == ".ply"
            temporary.write_text("new")
            assert not (tmp_path / "a" / "b" / "c.ply").exists()
        assert (tmp_path / "a" / "b" / "c.ply").read_text() == "new"
        assert listing(tmp_path / "a" / "b") == ["c.ply"]

    def test_a_failed_write_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("old")

        def fail() -> None:
            with atomic_write(path) as temporary:
                temporary.write_text("half")
                raise RuntimeError("the writer failed")

        with pytest.raises(RuntimeError, match="the writer failed"):
            fail()
        assert path.read_text() == "old"
        assert listing(tmp_path) == ["a.txt"]

    def test_long_names_fit(self, tmp_path):
        path = tmp_path / ("x" * 250 + ".txt")
        with atomic_write(path) as temporary:
            temporary.write_text("new")
        assert path.read_text() == "new"

    def test_places_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("x")
        for path in (tmp_path, tmp_path / "file" / "below", Path("/proc/nothing/a.txt"), tmp_path / ("x" * 300)):
            with pytest.raises(UserError), atomic_write(path) as temporary:
                temporary.write_text("new")

    def test_a_full_disk_is_a_user_error(self, tmp_path):
        with pytest.raises(UserError, match="No space left"), atomic_write(tmp_path / "a"):
            Path("/dev/full").write_bytes(bytes(100))


class TestFolder:
    def test_a_folder_of_ours_is_replaced(self, tmp_path):
        write_scene(tmp_path / "castle", "first")
        (tmp_path / "castle" / "only_in_first").write_text("x")
        write_scene(tmp_path / "castle", "second")
        assert listing(tmp_path / "castle") == [MARKER, "sub"]
        assert (tmp_path / "castle" / "sub" / "maps").read_text() == "second"
        assert listing(tmp_path) == ["castle"]

    def test_an_empty_folder_is_taken(self, tmp_path):
        (tmp_path / "castle").mkdir()
        write_scene(tmp_path / "castle", "first")
        assert (tmp_path / "castle" / MARKER).read_text() == "first"

    def test_other_people_s_folders_are_left_alone(self, tmp_path):
        (tmp_path / "holiday").mkdir()
        (tmp_path / "holiday" / "1.jpg").write_text("x")
        (tmp_path / "file").write_text("x")
        with pytest.raises(UserError, match="holds other files"):
            write_scene(tmp_path / "holiday", "first")
        with pytest.raises(UserError, match="is a file"):
            write_scene(tmp_path / "file", "first")
        assert listing(tmp_path) == ["file", "holiday"]

    def test_a_failed_write_leaves_the_old_folder(self, tmp_path):
        write_scene(tmp_path / "castle", "first")

        def fail() -> None:
            with atomic_directory(tmp_path / "castle", MARKER) as folder:
                (folder / MARKER).write_text("half")
                raise RuntimeError("the writer failed")

        with pytest.raises(RuntimeError, match="the writer failed"):
            fail()
        assert (tmp_path / "castle" / MARKER).read_text() == "first"
        assert listing(tmp_path) == ["castle"]

    @pytest.mark.parametrize("call", range(1, 8))
    def test_killed_at_any_moment(self, tmp_path, call):
        """A process is killed at its n-th sync or rename; the old or the new folder is there, and whole."""
        write_scene(tmp_path / "castle", "first")
        program = f"""
import os, signal
from pathlib import Path
from unposed.io import atomic
calls = 0
def deadly(function):
    def wrapped(*arguments):
        global calls
        calls += 1
        if calls == {call}:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return wrapped
atomic.os.replace = deadly(os.replace)
atomic.os.fsync = deadly(os.fsync)
with atomic.atomic_directory({str(tmp_path / "castle")!r}, {MARKER!r}) as folder:
    (folder / {MARKER!r}).write_text("second")
    (folder / "sub").mkdir()
    (folder / "sub" / "maps").write_text("second")
"""
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
        assert result.returncode == -signal.SIGKILL, result.stderr
        restore_directory(tmp_path / "castle")
        text = (tmp_path / "castle" / MARKER).read_text()
        assert text in ("first", "second")
        assert (tmp_path / "castle" / "sub" / "maps").read_text() == text
        write_scene(tmp_path / "castle", "third")
        assert (tmp_path / "castle" / MARKER).read_text() == "third"
        assert all(name == "castle" or name.startswith(".") for name in os.listdir(tmp_path))
