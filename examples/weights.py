"""Read a PyTorch weights file of the old kind (a pickle stream and raw storages) without PyTorch.

A pickle may name any function to call; the reader here knows the three names that such a file needs and refuses any
other, so that it reads numbers and runs nothing.
"""

import collections
import io
import pickle
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

type Weights = dict[str, npt.NDArray[Any]]

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor's numbers are in its storage; strides are not C order in weights that came from TensorFlow."""

    storage: str
    kind: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild(
    storage: tuple[str, str], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage[1], storage[0], offset, tuple(shape), tuple(strides))


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in STORAGES:
            return name
        raise pickle.UnpicklingError(f"the weights name {module}.{name}, which no weights need: not read")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        _, kind, key, *_ = pid
        return kind, key


def read(data: bytes) -> Weights:
    """Return every tensor by its name; raises pickle.UnpicklingError for a file of another kind."""
    stream = io.BytesIO(data)
    if _Reader(stream).load() != MAGIC or _Reader(stream).load() != PROTOCOL:
        raise pickle.UnpicklingError("this is not a weights file of PyTorch's old kind")
    _Reader(stream).load()  # byte order and type sizes of the machine that wrote it
    tensors: dict[str, _Tensor] = _Reader(stream).load()
    keys: list[str] = _Reader(stream).load()
    kinds: dict[str, np.dtype[Any]] = {tensor.storage: STORAGES[tensor.kind] for tensor in tensors.values()}
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        storages[key] = np.frombuffer(stream.read(count * kinds[key].itemsize), kinds[key])
    return {name: _gather(tensor, storages[tensor.storage]) for name, tensor in tensors.items()}


def _gather(tensor: _Tensor, storage: npt.NDArray[Any]) -> npt.NDArray[Any]:
    numbers = storage[tensor.offset :]
    reach = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if reach > numbers.size or min(tensor.strides, default=0) < 0:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage: the file is damaged")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides).copy()
