"""What was worked out of a collection of photos, in one SQLite file: features of photos, and matches of pairs.

Photos are known by their digest, so that the same file serves when photos join or leave. Everything is stored as soon
as it is finished: a killed run loses nothing else. About 2.7 MB a photo of 5000 keypoints, 20 kB a pair of 1000
matches.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import load, save

from unposed.errors import UserError
from unposed.models.base import PairMatches
from unposed.models.composed import LearnedKeypoints
from unposed.models.sift import Keypoints
from unposed.views import Matches

FILE = "collection.db"
_KINDS: Mapping[str, type[Keypoints]] = {kind.__name__: kind for kind in (Keypoints, LearnedKeypoints)}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS features (photo TEXT PRIMARY KEY, kind TEXT, data BLOB);
CREATE TABLE IF NOT EXISTS matches (a TEXT, b TEXT, focal_a REAL, focal_b REAL, data BLOB, PRIMARY KEY (a, b));
"""


class CollectionCache:
    """Features and verified matches of photos, by digest; reading decodes anew, nothing is kept in memory."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database, self._path = database, path

    @classmethod
    def open(cls, directory: str | Path, fingerprint: str) -> "CollectionCache":
        """The cache in a folder, to be closed; one of another ``fingerprint`` (model and image rule) is emptied.

        Raises:
            UserError: the folder cannot be written, or the file there is damaged or something else.
        """
        path = Path(directory) / FILE
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, isolation_level=None)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute("CREATE TABLE IF NOT EXISTS run (fingerprint TEXT)")
            if database.execute("SELECT fingerprint FROM run").fetchall() != [(fingerprint,)]:
                database.executescript("DROP TABLE IF EXISTS features; DROP TABLE IF EXISTS matches;" + _SCHEMA)
                database.execute("DELETE FROM run")
                database.execute("INSERT INTO run VALUES (?)", (fingerprint,))
        return cls(database, path)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def has_features(self, photo: str) -> bool:
        """Whether the features of a photo (its digest) are there."""
        return bool(self._database.execute("SELECT 1 FROM features WHERE photo = ?", (photo,)).fetchall())

    def put_features(self, photo: str, features: Keypoints) -> None:
        """Keep the features of a photo; descriptors are rounded to 16 bits."""
        tensors = {
            name: (tensor if name == "points" else tensor.half()).contiguous()
            for name, tensor in vars(features).items()
        }
        row = photo, type(features).__name__, save(tensors)
        with _explained(self._path):
            self._database.execute("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", row)

    def features(self, photo: str) -> Keypoints:
        """Features of a photo that ``has_features``."""
        row = self._database.execute("SELECT kind, data FROM features WHERE photo = ?", (photo,)).fetchone()
        return _KINDS[row[0]](**{name: tensor.float() for name, tensor in load(row[1]).items()})

    def pairs(self) -> set[tuple[str, str]]:
        """Pairs of photos of which the matches are there, the smaller digest first."""
        return set(self._database.execute("SELECT a, b FROM matches"))

    def put_matches(self, a: str, b: str, found: PairMatches) -> None:
        """Keep what a model said of two photos."""
        if a > b:
            a, b, found = b, a, _swapped(found)
        tensors = {name: tensor.contiguous() for name, tensor in vars(found.matches).items()}
        row = a, b, *found.focals, save(tensors)
        with _explained(self._path):
            self._database.execute("INSERT OR REPLACE INTO matches VALUES (?, ?, ?, ?, ?)", row)

    def matches(self, a: str, b: str) -> PairMatches:
        """What the model said of two photos that are among ``pairs``."""
        query = "SELECT focal_a, focal_b, data FROM matches WHERE a = ? AND b = ?"
        focal_a, focal_b, data = self._database.execute(query, (min(a, b), max(a, b))).fetchone()
        found = PairMatches(Matches(**load(data)), (focal_a, focal_b), verified=True)
        return _swapped(found) if a > b else found


def _swapped(found: PairMatches) -> PairMatches:
    return PairMatches(found.matches.swapped(), found.focals[::-1], found.verified)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What SQLite and the file system cannot do, as a sentence for the user."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UserError(f"{path} cannot be used ({error}); remove it or give another --out.") from error
