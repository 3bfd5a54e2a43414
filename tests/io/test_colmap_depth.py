import numpy as np
import pytest

from unposed.errors import UserError
from unposed.io.colmap_depth import read_colmap_depth


def test_rows_come_back_and_what_is_unknown_is_zero(tmp_path):
    depth = np.arange(1, 13, dtype="<f4").reshape(3, 4)
    depth[0, 1], depth[2, 3] = -1, np.nan
    (tmp_path / "a.bin").write_bytes(b"4&3&1&" + depth.tobytes())
    read = read_colmap_depth(tmp_path / "a.bin")
    np.testing.assert_array_equal(read, [[1, 0, 3, 4], [5, 6, 7, 8], [9, 10, 11, 0]])


@pytest.mark.parametrize("content", [b"", b"4&3&1&\0\0", b"4&3&3&" + bytes(144), b"99999999&99999999&1&", b"a&b&c&d"])
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.bin"):
        read_colmap_depth(tmp_path / "a.bin")
    with pytest.raises(UserError, match=r"none\.bin"):
        read_colmap_depth(tmp_path / "none.bin")
