"""The IDX format of MNIST's original files: a magic number, big-endian sizes, then raw bytes."""

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from lth_lightning.data.files import damaged, read_bytes

_UINT8 = 0x08


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The uint8 tensor of that shape in an IDX file, gzipped or not.

    Raises UserError, naming the file, where it is damaged, truncated, or holds another shape or type.
    """
    content = read_bytes(path)
    header = 4 + 4 * len(shape)
    if len(content) < header or content[:4] != bytes((0, 0, _UINT8, len(shape))):
        raise damaged(path, f"it is no IDX file of bytes in {len(shape)} dimension{'s' * (len(shape) > 1)}")
    found = struct.unpack(f">{len(shape)}I", content[4:header])
    if found != shape:
        raise damaged(path, f"it holds {_times(found)} values instead of {_times(shape)}")
    if len(content) - header != math.prod(shape):
        raise damaged(path, f"it has {len(content):,} bytes instead of {header + math.prod(shape):,}")
    # A bytearray, because torch warns of tensors over memory that cannot be written.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in sizes)
