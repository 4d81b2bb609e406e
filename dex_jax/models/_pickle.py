"""Reads the pickles inside PyTorch checkpoints without running anything in them.

A pickle is a program: it names functions and calls them. Here every name is looked up
in a short list. Those that build tensors answer with descriptions of tensors, those
that public training scripts leave beside the weights answer with an empty stand-in, and
any other name ends the reading with an error that says which it was.

A small pickle can also hold a value that is endless once it is printed, hashed or
copied, because it refers to itself or to one thing many times. So nothing in it is
hashed but strings, nothing printed but strings and numbers, and what is copied has a
limit.
"""

import math
import pickle
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple, Protocol

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
    "collections.deque",
    "copyreg._reconstructor",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "torch.bfloat16",
    "torch.device",
    "torch.float16",
    "torch.float32",
    "yacs.config.CfgNode",
    # Dictionaries of settings: Lightning's under its names of the years, and others'.
    "addict.addict.Dict",
    "easydict.EasyDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "mmcv.utils.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    # Python's own types: of a set, of the values of a defaultdict, in settings.
    *(
        f"{module}.{name}"
        for module in ("__builtin__", "builtins")
        for name in (
            *("bool", "bytearray", "complex", "dict", "float", "frozenset", "int"),
            *("list", "long", "object", "range", "set", "slice", "str", "tuple"),
            *("unicode", "xrange"),
        )
    ),
}


# Bytes of one pickle: of a network they take tens of thousands.
LONGEST = 64 * 2**20

# Pieces that a pickle is read in: some sixty for a tensor. One of a single byte may
# make an object of a hundred.
MOST_PIECES = 1_000_000

# Values that a pickle may copy from elsewhere in itself.
MOST_COPIED = 1_000_000


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

    @property
    def nbytes(self) -> int:
        """Size of the array that it becomes, with float16 widened."""
        itemsize = max(4, DTYPES[self.storage.kind].itemsize)
        return math.prod(self.shape) * itemsize


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


def shown(value: object) -> str:
    """What an error says of a value in the file."""
    if isinstance(value, str):
        return ascii(value[:100])
    if isinstance(value, int) and value.bit_length() <= 64:
        return str(value)
    return f"a {type(value).__name__}"


class Bounded:
    """A file that ends the reading of a pickle that is too long or in many pieces."""

    def __init__(self, file: Readable):
        self._file = file
        self._left = LONGEST
        self._pieces = MOST_PIECES

    def read(self, n: int = -1, /) -> bytes:
        """Reads at most n bytes."""
        return self._count(self._file.read(n))

    def readline(self) -> bytes:
        """Reads to the end of a line."""
        return self._count(self._file.readline())

    def _count(self, content: bytes) -> bytes:
        self._left -= len(content)
        self._pieces -= 1
        if self._left < 0:
            raise RefusedError(f"its pickle is longer than {LONGEST} bytes")
        if self._pieces < 0:
            raise RefusedError(f"its pickle has more than {MOST_PIECES} pieces")
        return content


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

    def add(self, value: object) -> None:
        """Ignores what is added to a set."""


class Parameter(StandIn):
    """What the oldest format wraps trained tensors in."""

    tensor: object = None

    def __setstate__(self, state: object) -> None:
        self.tensor = state[0] if isinstance(state, tuple) and state else None


class Table(dict[str, Any]):
    """A dictionary that keeps what has a string for its key, as weights do."""

    __slots__ = ()

    def __setitem__(self, key: object, value: object) -> None:
        if isinstance(key, str):
            super().__setitem__(key, value)

    def __setstate__(self, state: object) -> None:
        pass


# The interpreted twin of pickle.Unpickler: the compiled one allocates a table as long
# as a number in the file says.
class TensorUnpickler(pickle._Unpickler):
    """Unpickles one object; tensors come back as descriptions."""

    # Of the parent, in whose published types they are missing.
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: Readable, known: dict[str, Tensor] | None = None):
        super().__init__(Bounded(file), encoding="latin1")
        self._known = known or {}
        self._copied = 0
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Answers a name of the pickle from the lists; never imports."""
        full = f"{module}.{name}"
        if module == "torch" and name.removesuffix("Storage") in DTYPES:
            return name.removesuffix("Storage")
        if module in ("torch", "torch.cuda") and name.endswith("Tensor"):
            return name
        builders = {
            "collections.OrderedDict": self._table,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._first,
            "torch.nn.parameter.Parameter": Parameter,
            "torch.Size": self._size,
        }
        if full in builders:
            return builders[full]
        if full in INERT:
            return StandIn
        raise RefusedError(
            f"the file asks to call {ascii(full)[1:-1]}, which loading weights never "
            "needs; nothing in it was run"
        )

    def persistent_load(self, pid: Any) -> Any:
        """Answers a reference to memory outside the pickle."""
        if isinstance(pid, str) and pid in self._known:
            return self._known[pid]
        if not (isinstance(pid, tuple) and 5 <= len(pid) <= 6 and pid[0] == "storage"):
            raise RefusedError(f"the file refers to {shown(pid)}, no tensor storage")
        storage = described(pid[1], pid[2], pid[4])
        if pid[5:] not in ((), (None,)):
            raise RefusedError(f"storage {shown(pid[2])} is a piece of another")
        if self.storages.setdefault(storage.key, storage) != storage:
            raise RefusedError(f"storage {shown(pid[2])} is described in two ways")
        return storage

    def _tensor(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        *_: object,
    ) -> Tensor:
        if not isinstance(storage, Storage):
            raise RefusedError(f"a tensor is made from {shown(storage)}")
        return checked(Tensor(storage, offset, self._size(shape), self._size(strides)))

    def _first(self, value: Any, *_: object) -> Any:
        return value

    def _size(self, values: Iterable[int] = ()) -> tuple[int, ...]:
        return tuple(self._limited(values))

    def _table(self, pairs: Iterable[Any] = ()) -> Table:
        table = Table()
        for key, value in self._limited(pairs):
            table[key] = value
        return table

    def _limited(self, values: Iterable[Any]) -> Iterable[Any]:
        for value in values:
            self._copied += 1
            if self._copied > MOST_COPIED:
                raise RefusedError("it copies one value again and again")
            yield value

    def _push_table(self) -> None:
        self.append(Table())

    def _push_filled_table(self) -> None:
        items = self.pop_mark()
        self.append(self._table(zip(items[::2], items[1::2], strict=True)))

    def _push_set(self) -> None:
        self.append(StandIn())

    def _push_filled_set(self) -> None:
        self.pop_mark()
        self.append(StandIn())

    def _set_state(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], StandIn | Table):
            raise RefusedError(f"it changes {shown(self.stack[-1])}")
        self.stack[-1].__setstate__(state)

    def _refuse_buffer(self) -> None:
        raise RefusedError("its pickle holds a buffer that can be written to")

    def _begin_frame(self) -> None:
        # Its length is of no use: what is in it is read piece by piece.
        self.read(8)

    # The original's own methods would hash or change objects and reserve memory as
    # the file says.
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.EMPTY_DICT[0]: _push_table,
        pickle.DICT[0]: _push_filled_table,
        pickle.EMPTY_SET[0]: _push_set,
        pickle.FROZENSET[0]: _push_filled_set,
        pickle.BUILD[0]: _set_state,
        pickle.BYTEARRAY8[0]: _refuse_buffer,
        pickle.FRAME[0]: _begin_frame,
    }


def described(kind: object, key: object, count: object) -> Storage:
    """A storage by what the file says of it."""
    if not (isinstance(kind, str) and kind in DTYPES):
        raise RefusedError(f"a storage holds values of type {shown(kind)}")
    if not isinstance(key, str | int) or len(str(key)) > 100:
        raise RefusedError(f"a storage is called {shown(key)}")
    if not (isinstance(count, int) and 0 <= count < 2**60):
        raise RefusedError(f"storage {shown(key)} holds {shown(count)} values")
    return Storage(kind, str(key), count)


def checked(tensor: Tensor) -> Tensor:
    """Refuses a tensor that reaches outside its storage or is larger than it."""
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    if not all(isinstance(n, int) and 0 <= n < 2**60 for n in numbers):
        listed = ", ".join(map(shown, numbers[:9]))
        raise RefusedError(f"a tensor has offset, shape and strides {listed}")
    if len(tensor.shape) != len(tensor.strides) or len(tensor.shape) > 16:
        raise RefusedError(
            f"a tensor has {len(tensor.shape)} axes and {len(tensor.strides)} strides"
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
