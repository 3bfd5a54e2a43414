"""What a run says of itself: one line of JSON a record, and TensorBoard where wanted; only the main process writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unposed.errors import UserError
from unposed.io.atomic import atomic_write

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Record = dict[str, Any]
"""One line of ``log.jsonl``."""


class RunLog:
    """``log.jsonl``, ``preview.png`` and ``tensorboard/`` of a run."""

    def __init__(
        self, out: Path, step: int | None, tensorboard: bool, on_record: Callable[[Record], None] | None
    ) -> None:
        """``step``: go on after that step; what an earlier process logged beyond it is dropped. None: append.

        Raises:
            UserError: TensorBoard is wanted and not installed.
        """
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._on_record = out, on_record
        self._board = _board(out / "tensorboard", step) if tensorboard else None
        if step is not None and self._file.exists():
            lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
            with atomic_write(self._file) as temporary:
                temporary.write_text("".join(line for line in lines if _step_of(line) <= step), encoding="utf-8")

    @property
    def _file(self) -> Path:
        return self._out / "log.jsonl"

    def write(self, record: Record) -> None:
        """Append a record with its ``step``; rounded, since digits beyond the fifth are noise."""
        rounded = json.loads(json.dumps(record), parse_float=lambda text: float(f"{float(text):.5g}"))
        with self._file.open("a", encoding="utf-8") as log:
            log.write(json.dumps(rounded) + "\n")
        if self._on_record is not None:
            self._on_record(rounded)
        if self._board is not None:
            for name, value in _scalars(record).items():
                self._board.add_scalar(name, value, record["step"])

    def show(self, preview: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        """Replace the picture of some predictions."""
        Image.fromarray(preview).save(self._out / "preview.png")
        if self._board is not None:
            self._board.add_image("preview", preview, step, dataformats="HWC")

    def close(self) -> None:
        """Write what TensorBoard still holds."""
        if self._board is not None:
            self._board.close()


def _board(folder: Path, step: int | None) -> "SummaryWriter":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard needs TensorBoard: pip install 'unposed[train]'.") from error
    return SummaryWriter(str(folder), purge_step=None if step is None else step + 1)


def _step_of(line: str) -> float:
    """Step of a line; infinite for one that was cut when its process was killed."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _scalars(record: Record) -> dict[str, float]:
    """Numbers of a record by name; those of a validation as ``validation/name``."""
    flat = {key: value for key, value in record.items() if isinstance(value, int | float) and key != "step"}
    return flat | {f"validation/{name}": value for name, value in record.get("validation", {}).items()}
