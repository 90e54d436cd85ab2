"""One CIFAR10 batch file's bytes into tensors: the official python (pickle) and binary versions."""

import io
import pickle

import numpy as np
import torch
from torch import Tensor

PIXELS = 3 * 32 * 32


class _ArraysOnly(pickle.Unpickler):
    """A pickle can run any code; this one may only build NumPy arrays, which is all that CIFAR10's need."""

    _ALLOWED = {  # noqa: RUF012
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        # The official files name the old module; NumPy 2 moved it and warns of the old name.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> object:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, as no CIFAR10 file does") from None


def read_pickle(content: bytes, rows: int) -> tuple[Tensor, Tensor]:
    """Images uint8 [rows, 3072] and labels int64 [rows] of a python-version batch; else ValueError."""
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{error}" or type(error).__name__) from None
    if not (isinstance(batch, dict) and b"data" in batch and b"labels" in batch):
        raise ValueError("it is no CIFAR10 batch")
    data, labels = batch[b"data"], batch[b"labels"]
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape == (rows, PIXELS)):
        raise ValueError(f"it does not hold {rows:,} images of {PIXELS:,} bytes")
    if not (isinstance(labels, list) and len(labels) == rows and all(label in range(256) for label in labels)):
        raise ValueError(f"it does not hold {rows:,} labels of one byte")
    return torch.from_numpy(np.ascontiguousarray(data)), torch.tensor(labels)


def read_binary(content: bytes, rows: int) -> tuple[Tensor, Tensor]:
    """`read_pickle` for a binary-version batch: for each image, a byte of label and 3,072 of pixels."""
    if len(content) != rows * (1 + PIXELS):
        raise ValueError(f"it has {len(content):,} bytes instead of {rows * (1 + PIXELS):,}")
    table = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(rows, 1 + PIXELS)
    return table[:, 1:], table[:, 0].to(torch.int64)
