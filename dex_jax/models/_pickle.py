"""Reads the pickles inside PyTorch checkpoints without running anything in them.

A pickle is a program: it names functions and calls them. Here every name is looked up
in a short list. Those that build tensors answer with descriptions of tensors, those
that public training scripts leave beside the weights answer with an empty stand-in, and
any other name ends the reading with an error that says which it was.
"""

import pickle
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

# bfloat16 is read as its bits and widened later.
DTYPES = {
    "Float": np.dtype("<f4"),
    "Double": np.dtype("<f8"),
    "Half": np.dtype("<f2"),
    "BFloat16": np.dtype("<u2"),
    "Long": np.dtype("<i8"),
    "Int": np.dtype("<i4"),
    "Short": np.dtype("<i2"),
    "Char": np.dtype("i1"),
    "Byte": np.dtype("u1"),
    "Bool": np.dtype("?"),
}

# What training scripts store beside weights; each is replaced by an empty stand-in.
INERT = {
    "_codecs.encode",
    "argparse.Namespace",
    "collections.Counter",
    "collections.defaultdict",
    "copyreg._reconstructor",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.device",
    "yacs.config.CfgNode",
}


class Storage(NamedTuple):
    """A block of memory in the file."""

    kind: str
    """A key of `DTYPES`."""
    key: str
    elements: int
    """Number of elements it is said to hold."""

    @property
    def nbytes(self) -> int:
        """Its size by what the file says."""
        return self.elements * DTYPES[self.kind].itemsize


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class RefusedError(ValueError):
    """The file asks for something that loading weights never needs."""


class Readable(Protocol):
    """Bytes whose `read(n)` takes no more memory than there are bytes left."""

    def read(self, n: int = ..., /) -> bytes:
        """Reads at most n bytes."""
        ...

    def readline(self) -> bytes:
        """Reads to the end of a line."""
        ...


class StandIn:
    """An object that takes anything and does nothing."""

    def __init__(self, *_: object, **__: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Ignores what is appended to a list."""

    def extend(self, values: object) -> None:
        """Ignores what is appended to a list."""


class Parameter(StandIn):
    """What the oldest format wraps trained tensors in."""

    tensor: object = None

    def __setstate__(self, state: object) -> None:
        self.tensor = state[0] if isinstance(state, tuple) and state else None


# The interpreted twin of pickle.Unpickler: the compiled one allocates a table as long
# as a number in the file says.
class TensorUnpickler(pickle._Unpickler):
    """Unpickles one object; tensors come back as descriptions."""

    def __init__(self, file: Readable, known: dict[str, Tensor] | None = None):
        super().__init__(file, encoding="latin1")
        self._known = known or {}
        self.storages: dict[str, Storage] = {}
        # Classes for this file alone: a pickle may set attributes on what it is given.
        self._stand_in = type("StandIn", (StandIn,), {})
        self._parameter = type("Parameter", (Parameter,), {})

    def find_class(self, module: str, name: str) -> Any:
        """Answers a name of the pickle from the lists; never imports."""
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return OrderedDict
        if module == "torch" and name.removesuffix("Storage") in DTYPES:
            return name.removesuffix("Storage")
        if module in ("torch", "torch.cuda") and name.endswith("Tensor"):
            return name
        builders = {
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._first,
            "torch.nn.parameter.Parameter": self._parameter,
            "torch.Size": self._size,
        }
        if full in builders:
            return builders[full]
        if full in INERT:
            return self._stand_in
        raise RefusedError(
            f"the file asks to call {full}, which loading weights never needs; "
            "nothing in it was run"
        )

    def persistent_load(self, pid: Any) -> Any:
        """Answers a reference to memory outside the pickle."""
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage":
            kind, key, _, count = pid[1:5]
            if kind in DTYPES and isinstance(count, int) and count >= 0:
                storage = Storage(kind, str(key), count)
                if self.storages.setdefault(storage.key, storage) != storage:
                    raise RefusedError(f"storage {key} is described in two ways")
                return storage
        if isinstance(pid, str) and pid in self._known:
            return self._known[pid]
        raise RefusedError(f"the file refers to {pid!r}, which is no tensor storage")

    def _tensor(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        *_: object,
    ) -> Tensor:
        if not isinstance(storage, Storage):
            raise RefusedError(f"a tensor is made from {type(storage).__name__}")
        return checked(Tensor(storage, offset, tuple(shape), tuple(strides)))

    def _first(self, value: Any, *_: object) -> Any:
        return value

    def _size(self, values: Sequence[int] = ()) -> tuple[int, ...]:
        return tuple(values)


def checked(tensor: Tensor) -> Tensor:
    """Refuses a tensor that reaches outside its storage or is larger than it."""
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    if not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise RefusedError(f"a tensor has offset, shape and strides {numbers}")
    if len(tensor.shape) != len(tensor.strides) or len(tensor.shape) > 16:
        raise RefusedError(
            f"a tensor has shape {tensor.shape}, strides {tensor.strides}"
        )
    count = 1
    for size in tensor.shape:
        count *= size
    pairs = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in pairs)
    held = tensor.storage.elements
    if count and (last >= held or count > held):
        raise RefusedError(
            f"a tensor of shape {tensor.shape} reaches to element {last} of a storage "
            f"of {held}"
        )
    return tensor


def as_array(tensor: Tensor, memory: bytes) -> np.ndarray:
    """The tensor's values, copied; bfloat16 and float16 widened to float32."""
    dtype = DTYPES[tensor.storage.kind]
    if len(memory) != tensor.storage.nbytes:
        raise RefusedError(
            f"storage {tensor.storage.key} holds {len(memory)} bytes where "
            f"{tensor.storage.nbytes} are declared"
        )
    if 0 in tensor.shape:
        flat = np.zeros(tensor.shape, dtype)
    else:
        flat = np.lib.stride_tricks.as_strided(
            np.frombuffer(memory, dtype)[tensor.offset :],
            tensor.shape,
            [stride * dtype.itemsize for stride in tensor.strides],
            writeable=False,
        ).copy()
    if tensor.storage.kind == "BFloat16":
        return widen_bfloat16(flat)
    return flat.astype(np.float32) if tensor.storage.kind == "Half" else flat


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Bits of bfloat16 values as float32: the upper half of its bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
