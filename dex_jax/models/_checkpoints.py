"""PyTorch checkpoints in every container, without PyTorch and without running code."""

import io
import mmap
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors

from dex_jax._checks import check_directory, check_file, check_memory
from dex_jax.models._pickle import (
    LONGEST,
    Parameter,
    RefusedError,
    Storage,
    Table,
    Tensor,
    TensorUnpickler,
    as_array,
    checked,
    described,
    shown,
    widen_bfloat16,
)

# Of tables inside tables: characters in front of a name, and names in all of them.
LONGEST_PREFIX = 100
MOST_NAMES = 100_000

Memory = Callable[[Storage], bytes]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

# Under which a training script keeps the weights among other things.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")

SAFETENSORS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_torch_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch checkpoint, without PyTorch.

    Takes what `torch.save` has written over the years (zip since 1.6, the stream before
    it, the tar of 0.1) and safetensors. A checkpoint is a pickle, which may call any
    function when it is read the usual way; this reader calls none of them and refuses
    a file that asks for one, naming it. Sizes are checked before memory is taken.

    Args:
        path: the file. Weights under `state_dict`, `model` and the like are found, and
            under other words by their whole path, `teacher.conv1.weight`; names are
            left as they are (`load_torch_weights` finds what stands before them).

    Returns:
        Arrays by name in the layout of PyTorch (convolutions OIHW); bfloat16 and
        float16 are widened to float32, other types kept.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no plain file, not a checkpoint, damaged, without tensors, or
            refused.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from safetensors.numpy import save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "one.safetensors")
        ...     size = file.write_bytes(save({"fc.bias": np.float16([0.5, 2])}))
        ...     read_torch_checkpoint(file)
        {'fc.bias': array([0.5, 2. ], dtype=float32)}
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path: there is no checkpoint {path}")
    check_file(path, "checkpoint")
    try:
        # A map of the file never hands out more bytes than there are.
        check_memory(path.stat().st_size)
        with path.open("rb") as opened, _mapped(opened) as file:
            if file[8:9] == b"{":
                return _read_safetensors(file[:])
            if file[:2] == b"PK":
                return _read_zip(opened, len(file))
            if file[257:262] == b"ustar":
                return _read_tar(file)
            return _read_stream(file)
    except RefusedError as error:
        raise ValueError(f"{path}: refused: {error}") from error
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        safetensors.SafetensorError,
        struct.error,
        # What a damaged pickle makes the unpickler do.
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        # Also encryption and future versions of zip, and nesting without end.
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"{path}: not a PyTorch or safetensors checkpoint, or a damaged one "
            f"({type(error).__name__}: {error})"
        ) from error


def _mapped(file: IO[bytes]) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    arrays = {}
    for name, entry in safetensors.deserialize(content):
        kind = entry["dtype"]
        if kind not in SAFETENSORS:
            raise RefusedError(f"tensor {name} has the type {kind}")
        flat = np.frombuffer(entry["data"], SAFETENSORS[kind])
        array = flat.reshape(entry["shape"]).copy()
        if kind == "BF16":
            array = widen_bfloat16(array)
        arrays[name] = array.astype(np.float32) if kind == "F16" else array
    _check_names(arrays)
    return arrays


def _read_zip(file: IO[bytes], length: int) -> dict[str, np.ndarray]:
    check_directory(file)
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if len(entries) < len(archive.filelist):
            raise RefusedError("the archive holds two files of one name")
        pickles = [name for name in entries if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise RefusedError(
                f"the archive holds {len(pickles)} files data.pkl, not one"
            )
        root = pickles[0].removesuffix("data.pkl")

        def read(name: str, size: int | None) -> bytes:
            info = entries[root + name]
            if info.compress_type != zipfile.ZIP_STORED:
                raise RefusedError(f"{info.filename} is compressed")
            if not 0 <= info.header_offset < length:
                raise RefusedError(f"{info.filename} lies outside the file")
            if size is None and info.file_size > LONGEST:
                raise RefusedError(f"{info.filename} is longer than {LONGEST} bytes")
            if size is not None and info.file_size != size:
                raise RefusedError(
                    f"storage {info.filename} holds {info.file_size} bytes where "
                    f"{size} are declared"
                )
            return archive.read(info)

        order = f"{root}byteorder"
        if order in entries and read("byteorder", None).strip() != b"little":
            raise RefusedError("its numbers are not little-endian")
        content = TensorUnpickler(io.BytesIO(read("data.pkl", None))).load()
        return _arrays(content, lambda s: read(f"data/{s.key}", s.nbytes), length)


def _read_stream(file: mmap.mmap) -> dict[str, np.ndarray]:
    if TensorUnpickler(file).load() != LEGACY_MAGIC:
        raise RefusedError("it does not begin as a checkpoint does")
    if TensorUnpickler(file).load() != LEGACY_PROTOCOL:
        raise RefusedError("its format has another version")
    if not TensorUnpickler(file).load().get("little_endian", True):
        raise RefusedError("its numbers are not little-endian")
    unpickler = TensorUnpickler(file)
    content = unpickler.load()
    keys = TensorUnpickler(file).load()
    places: dict[str, int] = {}
    for key in keys:
        storage = unpickler.storages[key if isinstance(key, str) else shown(key)]
        _check_count(file, storage)
        places[storage.key] = file.tell()
        file.seek(storage.nbytes, os.SEEK_CUR)

    def read(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.nbytes)

    return _arrays(content, read, len(file))


def _check_count(file: mmap.mmap, storage: Storage) -> None:
    """Compares what a storage is said to hold with what stands before and after it."""
    (count,) = struct.unpack("<q", file.read(8))
    left = len(file) - file.tell()
    if count != storage.elements or storage.nbytes > left:
        raise RefusedError(
            f"storage {storage.key} is declared with {storage.elements} elements, "
            f"holds {count}, and {left} bytes are left in the file"
        )


def _read_tar(file: mmap.mmap) -> dict[str, np.ndarray]:
    members = _members(file)
    memory: dict[str, bytes] = {}
    storages: dict[str, Storage] = {}
    data = io.BytesIO(members["storages"])
    for _ in range(TensorUnpickler(data).load()):
        key, _, kind = TensorUnpickler(data).load()
        (count,) = struct.unpack("<q", data.read(8))
        storage = described(kind, key, count)
        if storage.key in storages:
            raise RefusedError(f"storage {shown(key)} is described in two ways")
        storages[storage.key] = storage
        memory[storage.key] = data.read(storage.nbytes)
    if TensorUnpickler(data).load():
        raise RefusedError("it shares storages in a way that was never published")
    known: dict[str, Tensor] = {}
    data = io.BytesIO(members["tensors"])
    for _ in range(TensorUnpickler(data).load()):
        key, storage, _ = TensorUnpickler(data).load()
        # The number of axes is followed by four bytes that mean nothing.
        (axes,) = struct.unpack("<i4x", data.read(8))
        if not 0 <= axes <= 16:
            raise RefusedError(f"a tensor has {axes} axes")
        numbers = struct.unpack(f"<{2 * axes + 1}q", data.read(8 * (2 * axes + 1)))
        shape, strides, offset = numbers[:axes], numbers[axes:-1], numbers[-1]
        whole = storages[shown(storage)]
        known[shown(key)] = checked(Tensor(whole, offset, shape, strides))
    content = TensorUnpickler(io.BytesIO(members["pickle"]), known).load()
    return _arrays(content, lambda s: memory[s.key], len(file))


def _members(file: mmap.mmap) -> dict[str, bytes]:
    """The plain files of a tar archive; links and sparse files are left out."""
    members: dict[str, bytes] = {}
    place = 0
    while header := file[place : place + 512].rstrip(b"\0"):
        name = header[:100].rstrip(b"\0").decode("ascii")
        size = int(header[124:136].strip(b" \0"), 8)
        place += 512
        if not 0 <= size <= len(file) - place:
            raise RefusedError(f"member {shown(name)} is said to hold {size} bytes")
        if header[156:157] in (b"0", b""):
            members[name] = file[place : place + size]
        place += -(-size // 512) * 512
    return members


def _arrays(content: Any, read: Memory, length: int) -> dict[str, np.ndarray]:
    """Finds the state dict in what was unpickled and reads its tensors.

    A file of `length` bytes may name one storage often; its arrays together may take no
    more than eight times its length.
    """
    found = _unwrapped(content)
    entries = found.items() if isinstance(found, Table) else ()
    bare = {k: v.tensor if isinstance(v, Parameter) else v for k, v in entries}
    tensors = {k: v for k, v in bare.items() if isinstance(v, Tensor)}
    if not tensors:
        names = ", ".join(map(shown, list(content)[:5])) if entries else shown(content)
        raise RefusedError(f"it holds no named tensors, only {names}")
    _check_names(tensors)
    storages = {t.storage.key: t.storage for t in tensors.values()}
    needed = sum(storage.nbytes for storage in storages.values())
    returned = sum(t.nbytes for t in tensors.values())
    if needed > length or returned > 8 * length:
        raise RefusedError(
            f"its storages take {needed} bytes and its tensors {returned}, the file "
            f"has {length}"
        )
    blocks = {key: read(storage) for key, storage in storages.items()}
    return {
        name: as_array(tensor, blocks[tensor.storage.key])
        for name, tensor in tensors.items()
    }


def _check_names(names: Iterable[str]) -> None:
    """Names are printed in reports, where control codes would take effect."""
    for name in names:
        if not name.isprintable():
            raise RefusedError(f"a tensor is called {shown(name)}")


def _unwrapped(content: Any) -> Any:
    """What is inside `state_dict` and the like; they may be nested twice.

    Where no such word is used, tables inside tables become one, their names joined by
    dots: `{"teacher": {"conv1.weight": ...}}` holds `teacher.conv1.weight`.
    """
    found = content
    # A wrapper is looked for first: there may be stray tensors beside the weights.
    for _ in range(3):
        inner = [found[w] for w in WRAPPERS if isinstance(found, Table) and w in found]
        found = next((each for each in inner if _holds_tensors(each)), found)
    return _flat(found) if isinstance(found, Table) else found


def _holds_tensors(value: Any) -> bool:
    kinds = Tensor | Parameter
    return isinstance(value, Table) and any(
        isinstance(each, kinds) for each in _flat(value).values()
    )


def _flat(table: Table) -> Table:
    """One table of what stands in tables inside a table; each of them is taken once."""
    flat, seen = Table(table), {id(table)}
    pending = [("", table)]
    for prefix, each in pending:
        for key, value in each.items():
            if isinstance(value, Table):
                # Words in front of weights are short and few.
                name = f"{prefix}{key}."
                if id(value) not in seen and len(name) <= LONGEST_PREFIX:
                    seen.add(id(value))
                    pending.append((name, value))
            elif prefix and isinstance(value, Tensor | Parameter):
                if f"{prefix}{key}" in flat:
                    raise RefusedError(f"two tensors are called {shown(prefix + key)}")
                flat[f"{prefix}{key}"] = value
        if len(flat) > len(table) + MOST_NAMES:
            raise RefusedError(f"it names more than {MOST_NAMES} tensors")
    return flat
