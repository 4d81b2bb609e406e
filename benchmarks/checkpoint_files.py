"""Small checkpoints in every container that PyTorch has used, written without it."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

Tensors = Mapping[str, np.ndarray]

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
KINDS = {"float32": "Float", "float64": "Double", "float16": "Half", "int64": "Long"}


def small_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """A few tensors of every type."""
    rng = np.random.default_rng(seed)
    return {
        "conv1.weight": rng.standard_normal((4, 3, 2, 2)).astype(np.float32),
        "bn1.bias": rng.standard_normal(4),
        "bn1.weight": rng.standard_normal(4).astype(np.float16),
        "bn1.num_batches_tracked": np.array(7),
    }


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _whole(*values: int) -> bytes:
    return b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values)


def _strides(array: np.ndarray) -> list[int]:
    return [stride // array.itemsize for stride in array.strides]


def _storage_type(array: np.ndarray) -> bytes:
    return f"ctorch\n{KINDS[array.dtype.name]}Storage\n".encode()


def _state(tensors: Tensors, *, more: bytes) -> bytes:
    """The pickle of a dictionary of tensors, each in a storage of its own."""
    program = b"\x80\x02}" + _text("epoch") + b"K\x03s" + _text("state_dict") + b"}("
    for key, (name, array) in enumerate(tensors.items()):
        storage = _text("storage") + _storage_type(array) + _text(str(key))
        storage += _text("cpu") + _whole(array.size) + more
        view = b"(" + _whole(*array.shape) + b"t(" + _whole(*_strides(array)) + b"t"
        program += _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
        program += b"(" + storage + b"tQ" + _whole(0) + view
        program += b"\x89ccollections\nOrderedDict\n)RtR"
    return program + b"us."


def zipped(tensors: Tensors) -> bytes:
    """As `torch.save` writes since 1.6."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", _state(tensors, more=b""))
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def streamed(tensors: Tensors) -> bytes:
    """As `torch.save` wrote from 0.1.10 to 1.5."""
    head = [MAGIC, PROTOCOL, {"protocol_version": PROTOCOL, "little_endian": True}]
    keys = [str(key) for key in range(len(tensors))]
    content = b"".join(pickle.dumps(each, 2) for each in head)
    content += _state(tensors, more=b"N") + pickle.dumps(keys, 2)
    for array in tensors.values():
        content += struct.pack("<q", array.size) + array.tobytes()
    return content


def tarred(tensors: Tensors) -> bytes:
    """As `torch.save` wrote before 0.1.10."""
    count = pickle.dumps(len(tensors), 2)
    storages = views = count
    program = b"\x80\x02}("
    for key, (name, array) in enumerate(tensors.items()):
        kind, number = _storage_type(array), _whole(key)
        storages += b"\x80\x02(" + number + _text("cpu") + kind + b"t."
        storages += struct.pack("<q", array.size) + array.tobytes()
        views += b"\x80\x02(" + number + number + kind + b"t."
        views += struct.pack("<ii", array.ndim, 0)
        numbers = (*array.shape, *_strides(array), 0)
        views += struct.pack(f"<{len(numbers)}q", *numbers)
        program += _text(name) + _text(str(key)) + b"Q"
    storages += pickle.dumps([], 2)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        parts = {"storages": storages, "tensors": views, "pickle": program + b"u."}
        for name, content in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def plain(tensors: Tensors) -> bytes:
    """Safetensors."""
    return save(dict(tensors), {"format": "pt"})


CONTAINERS: dict[str, Callable[[Tensors], bytes]] = {
    "zip.pth": zipped,
    "stream.pth": streamed,
    "tar.pth": tarred,
    "plain.safetensors": plain,
}


def write_checkpoints(folder: Path) -> list[Path]:
    """One file of each container."""
    files = [folder / name for name in CONTAINERS]
    for file in files:
        file.write_bytes(CONTAINERS[file.name](small_tensors()))
    return files
