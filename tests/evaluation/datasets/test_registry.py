import inspect
from pathlib import Path

import pytest

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets.registry import READERS

PAGE = Path(__file__).parents[3] / "docs" / "datasets.md"


def test_names_and_kinds():
    for name, reader in READERS.items():
        assert name == reader.name
        assert reader.layout
        assert reader.kind in ("sequences", "pairs", "relocalisation", "novel views")
        parameters = list(inspect.signature(reader.read).parameters.values())
        assert [parameter.name for parameter in parameters[:2]] == ["root", "scenes"]
        assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters[1:])
        assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters[2:])


@pytest.mark.parametrize("name", READERS)
def test_a_wrong_folder_is_said_in_a_sentence(name, tmp_path):
    """No such folder, an empty one, one with something else, a file."""
    something = tmp_path / "something"
    made.write_picture(something / "holiday" / "a.jpg", (64, 64))
    (tmp_path / "empty").mkdir()
    made.write_text(tmp_path / "file", "text")
    for folder in ("nowhere", "empty", "something", "file"):
        with pytest.raises(UserError, match=str(tmp_path / folder)):
            READERS[name].read(tmp_path / folder)
        with pytest.raises(UserError, match=str(tmp_path / folder)):
            READERS[name].read(tmp_path / folder, ["chess"])


def test_every_reader_is_in_the_page():
    text = PAGE.read_text()
    assert [name for name in READERS if f"`{name}`" not in text] == []
