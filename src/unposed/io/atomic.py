"""Files and folders that appear whole or not at all: written beside their place, then renamed into it.

After a power cut or ``kill -9`` the old content or the new one is there, never a part; what may stay behind is a hidden
``.name-*`` beside it, which no reader of this package looks at.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unposed.errors import UserError

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)
"""What the system says of a place that the user has to change."""


@contextmanager
def atomic_write(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path with the same suffix in the same folder; on success it becomes ``path``.

    Missing parent folders are made. If the body raises, ``path`` is as it was. Without ``sync`` the promise holds for a
    killed process, but a power cut may leave a damaged file: for caches that check what they read.

    Raises:
        UserError: the place cannot be written (permissions, a folder of that name, disk full).
    """
    path = Path(path)
    temporary = _beside(path)
    with _user_errors(path):
        _make_folder(path.parent)
        if path.is_dir():
            raise UserError(f"{path} is a folder; choose a file name.")
        try:
            yield temporary
            if sync:
                _sync(temporary)
            os.replace(temporary, path)
            if sync:
                _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path, marker: str) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it becomes ``path``, in place of an earlier one of ours.

    A folder at ``path`` is ours, and is replaced, when it holds a file called ``marker`` (say ``scene.json``), which
    the body must write too; an empty one is taken as well. Call :func:`restore_directory` before reading ``path``: it
    heals the one moment, between two renames, at which a crash leaves the old folder under another name.

    Raises:
        UserError: ``path`` holds something that is not ours, or cannot be written.
    """
    path = Path(path)
    temporary, previous = _beside(path), _previous(path)
    with _user_errors(path):
        restore_directory(path)
        _check_replaceable(path, marker)
        _make_folder(temporary)
        try:
            yield temporary
            for file in temporary.rglob("*"):
                _sync(file)
            _sync(temporary)
            if path.exists():
                os.replace(path, previous)
            os.replace(temporary, path)
            _sync(path.parent)
            shutil.rmtree(previous, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def restore_directory(path: str | Path) -> None:
    """Undo a replacement of the folder ``path`` that was cut between its two renames; else do nothing."""
    path = Path(path)
    previous = _previous(path)
    if not previous.exists():
        return
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
    else:
        os.replace(previous, path)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {path} cannot be made ({error.strerror}); choose another place.") from error


def _check_replaceable(path: Path, marker: str) -> None:
    if path.is_dir():
        if any(path.iterdir()) and not (path / marker).exists():
            raise UserError(f"{path} holds other files (no {marker} in it); choose a new folder.")
    elif path.exists():
        raise UserError(f"{path} is a file; choose a folder name.")


def _beside(path: Path) -> Path:
    """A fresh hidden name in the same folder with the same suffix (some writers look at it)."""
    return path.with_name(f".{path.stem[:60]}-{secrets.token_hex(6)}{path.suffix[-20:]}")


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name[:80]}-previous")


def _sync(path: Path) -> None:
    """Force a file or folder to the disk; a folder cannot be opened on some systems, and then need not be."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _user_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about an unwritable place into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise UserError(f"Cannot write {path}: {error.strerror}; choose another place or make room.") from error
