"""Pickles of NumPy arrays and plain Python values, read without executing anything that is in them."""

import pickle
from typing import Any, BinaryIO

from unposed.errors import UserError

_ARRAY_PARTS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}
"""All that a pickled NumPy array needs."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise UserError(f"The file wants to run {module}.{name}, which no array needs; do not trust it.")
        return super().find_class(module, name)


def load_arrays(file: BinaryIO) -> Any:
    """What a pickle holds, as long as it is arrays in plain Python values.

    Raises:
        UserError: it holds anything else.
        Exception: a damaged or hostile pickle can raise nearly anything.
    """
    return _ArraysOnly(file).load()
