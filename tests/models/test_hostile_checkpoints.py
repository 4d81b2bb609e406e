"""Files made to harm their reader; each is refused in words, and cheaply."""

import json
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from dex_jax.models import read_torch_checkpoint


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def _zip(path: Path, data: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (Calls(exec, "raise SystemExit"), r"__builtin__\.exec"),
        (Calls(getattr, dict, "get"), r"__builtin__\.getattr"),
        (Calls(np.load, "weights.npy"), r"numpy\.load"),
        (Calls(zlib.crc32, b""), r"zlib\.crc32"),
    ],
)
def test_no_name_outside_the_lists_is_looked_up(tmp_path: Path, call, named: str):
    file = _zip(tmp_path / "evil.pth", pickle.dumps({"x": call}, protocol=2))
    with pytest.raises(ValueError, match=f"refused: the file asks to call {named}"):
        read_torch_checkpoint(file)


def _refused(path: Path, message: str) -> None:
    """The file is refused in these words, and little memory was taken for it."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"{path.name}: .*{message}"):
            read_torch_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


# Pickle programs. Each of the nested ones would take for ever, or crash the
# interpreter, if it were printed, hashed or copied as it asks.
DOUBLED = b"\x80\x02" + b")" + b"2\x86" * 100  # (x, x) of (x, x) of ...
DEEP = b"\x80\x02" + b")" + b"\x85" * 200_000  # ((((...))))
REDUCE_SIZE = b"ctorch\nSize\n"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        # A string of 2^60 bytes; a memo entry far away; a buffer of 2^60 bytes.
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**60), "damaged"),
        (b"}r" + b"\xff" * 4 + b".", "no named tensors"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**60), "a buffer that can be written"),
        (DOUBLED + b".", "no named tensors, only a tuple"),
        (DEEP + b".", "no named tensors, only a tuple"),
        # As a key, in a set, as a reference, as a number of axes, as a state.
        (b"\x80\x02}" + DOUBLED[2:] + b"Ns.", "no named tensors, only a Table"),
        (b"\x80\x02}" + DEEP[2:] + b"Ns.", "no named tensors, only a Table"),
        (b"\x80\x04(" + DOUBLED[2:] + b"\x91.", "no named tensors, only a StandIn"),
        (b"\x80\x04\x8f(" + DEEP[2:] + b"\x90.", "no named tensors, only a StandIn"),
        (DOUBLED + b"Q.", "refers to a tuple, no tensor storage"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "changes a method"),
        (b"\x80\x02cargparse\nNamespace\n}b.", "changes a type"),
        # One list of a thousand, copied two thousand times.
        (
            b"\x80\x02(" + b"K\x01" * 1000 + b"lq\x000"
            b"(" + (REDUCE_SIZE + b"h\x00\x85R") * 2000 + b"l.",
            "copies one value again and again",
        ),
        # A dictionary that is its own state_dict.
        (b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s.", "no named tensors"),
        (b"\x80\x02c__main__\n\x1b[2J\n.", r"asks to call __main__\.\\x1b\[2J"),
    ],
)
def test_what_a_pickle_holds_is_not_believed(tmp_path: Path, program, message: str):
    _refused(_zip(tmp_path / "hostile.pth", program), message)
    legacy = [pickle.dumps(n, 2) for n in (0x1950A86A20F9469CFC6C, 1001, {})]
    (tmp_path / "old.pth").write_bytes(b"".join(legacy) + program + pickle.dumps([], 2))
    _refused(tmp_path / "old.pth", message)


@pytest.mark.parametrize("framed", [False, True])
def test_a_pickle_of_very_many_pieces_is_refused(tmp_path: Path, *, framed: bool):
    many = (b"}" if framed else b"\x8f") * 1_200_000
    start = b"\x80\x04\x95" + struct.pack("<Q", len(many)) if framed else b"\x80\x02"
    file = _zip(tmp_path / "many.pth", start + many + b".")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than 1000000 pieces"):
            read_torch_checkpoint(file)
        assert tracemalloc.get_traced_memory()[1] < 250 * 2**20
    finally:
        tracemalloc.stop()


def test_frames_are_read_whatever_their_length_says(tmp_path: Path):
    framed = pickle.dumps({"weights": list(range(9))}, protocol=4)
    assert framed[2:3] == pickle.FRAME
    for length in (0, 3, 2**62):
        lying = framed[:3] + struct.pack("<Q", length) + framed[11:]
        _refused(
            _zip(tmp_path / "framed.pth", lying), "no named tensors, only 'weights'"
        )


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _numbers(*values: int) -> bytes:
    """A tuple of whole numbers of any size."""
    encoded = [
        v.to_bytes(v.bit_length() // 8 + 1, "little", signed=True) for v in values
    ]
    return b"(" + b"".join(b"\x8a" + bytes([len(e)]) + e for e in encoded) + b"t"


def _tensor(
    *,
    shape=(2,),
    strides=(1,),
    offset: int = 0,
    count: int = 2,
    kind: str = "FloatStorage",
    more: bytes = b"",
) -> bytes:
    """The pickle program of a tensor in storage "0"."""
    pid = _text("storage") + f"ctorch\n{kind}\n".encode() + _text("0") + _text("cpu")
    pid += _numbers(count)[1:-1] + more
    view = _numbers(offset)[1:-1] + _numbers(*shape) + _numbers(*strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n((" + pid + b"tQ" + view + b"tR"


def _named(*entries: bytes) -> bytes:
    """The pickle of a dictionary w0, w1, ... of tensors."""
    pairs = [_text(f"w{i}") + entry for i, entry in enumerate(entries)]
    return b"\x80\x02}(" + b"".join(pairs) + b"u."


def test_a_tensor_written_by_hand_is_read(tmp_path: Path):
    memory = {"0": np.arange(2, dtype=np.float32).tobytes()}
    file = _zip(tmp_path / "good.pth", _named(_tensor()), **memory)
    np.testing.assert_array_equal(read_torch_checkpoint(file)["w0"], [0, 1])
    inner = b"}" + _text("c") + _tensor() + b"s"
    once = b"\x80\x02}" + _text("a.b") + inner + b"s"
    file = _zip(tmp_path / "nested.pth", once + b".", **memory)
    np.testing.assert_array_equal(read_torch_checkpoint(file)["a.b.c"], [0, 1])
    twice = once + _text("a.b.c") + _tensor() + b"s."
    _refused(_zip(tmp_path / "twice.pth", twice, **memory), r"two .* called 'a\.b\.c'")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([_tensor(strides=(-1,))], "offset, shape and strides 0, 2, -1"),
        ([_tensor(offset=-1)], "offset, shape and strides -1, 2, 1"),
        ([_tensor(offset=1)], "reaches to element 2 of a storage of 2"),
        ([_tensor(offset=2**80)], "offset, shape and strides a int, 2, 1"),
        ([_tensor(strides=(2**59,))], "reaches to element 576460752303423488"),
        ([_tensor(shape=(2**62,))], "offset, shape and strides"),
        # A stride of 0 repeats a value without end.
        ([_tensor(shape=(2**50,), strides=(0,))], "reaches to element 0 of a storage"),
        ([_tensor(shape=(1,) * 17, strides=(1,) * 17)], "17 axes and 17 strides"),
        ([_tensor(strides=())], "1 axes and 0 strides"),
        ([_tensor(count=-1)], "storage '0' holds -1 values"),
        ([_tensor(count=2**70)], "storage '0' holds a int values"),
        ([_tensor(kind="Size")], "a storage holds values of type a method"),
        ([_tensor(more=_numbers(1, 2))], "storage '0' is a piece of another"),
        ([_tensor(), _tensor(count=3)], "storage '0' is described in two ways"),
        ([_tensor(count=4)], "holds 8 bytes where 16 are declared"),
        ([_tensor(count=2**40)], "storages take 4398046511104 bytes"),
        # Many tensors of one storage: every one of them would be a copy.
        ([_tensor()] * 3000, None),
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path: Path, tensors, message):
    file = _zip(tmp_path / "hostile.pth", _named(*tensors), **{"0": bytes(8)})
    if message is not None:
        _refused(file, f"refused: .*{message}")
        return
    assert len(read_torch_checkpoint(file)) == len(tensors)
    large = [_tensor(shape=(2**18,), count=2**18)] * 40
    file = _zip(tmp_path / "many.pth", _named(*large), **{"0": bytes(2**20)})
    _refused(file, "its tensors 41943040, the file has 105")


def test_archives_that_lie_are_refused(tmp_path: Path):
    program = _named(_tensor())
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", program)
    _refused(tmp_path / "bomb.pth", "data.pkl is compressed")
    with zipfile.ZipFile(tmp_path / "two.pth", "w") as archive:
        for root in "ab":
            archive.writestr(f"{root}/data.pkl", program)
    _refused(tmp_path / "two.pth", "2 files data.pkl, not one")
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(tmp_path / "twice.pth", "w") as archive,
    ):
        for content in (bytes(8), bytes(range(8))):
            archive.writestr("a/data/0", content)
        archive.writestr("a/data.pkl", program)
    _refused(tmp_path / "twice.pth", "two files of one name")
    big = _zip(tmp_path / "locked.pth", program, **{"0": bytes(8)}).read_bytes()
    # Bit 0 of the flags, in both headers of the first member: encrypted.
    place = big.index(b"PK\x01\x02")
    locked = big[:6] + b"\x01" + big[7 : place + 8] + b"\x01" + big[place + 9 :]
    (tmp_path / "locked.pth").write_bytes(locked)
    _refused(tmp_path / "locked.pth", "encrypted")
    with zipfile.ZipFile(tmp_path / "name.pth", "w") as archive:
        renamed = program.replace(_text("w0"), _text("\x1b]0;"))
        archive.writestr("a/data.pkl", renamed)
        archive.writestr("a/data/0", bytes(8))
    _refused(tmp_path / "name.pth", r"a tensor is called '\\x1b\]0;'")


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        (tarfile.SYMTYPE, 0, "storages"),
        (tarfile.LNKTYPE, 0, "storages"),
        (tarfile.REGTYPE, 2**32, "member 'storages' is said to hold 4294967296"),
        (tarfile.REGTYPE, -512, "member 'storages' is said to hold -512"),
    ],
)
def test_links_and_sizes_of_a_tar_are_not_followed(
    tmp_path: Path, kind: bytes, size: int, message: str
):
    entry = tarfile.TarInfo("storages")
    entry.type, entry.linkname = kind, "storages"
    header = bytearray(entry.tobuf(tarfile.USTAR_FORMAT))
    if size > 0:
        header[124:136] = b"%011o " % size
    elif size:
        header[124:136] = b"-0000001000 "
    (tmp_path / "old.pth").write_bytes(bytes(header) + bytes(1024))
    _refused(tmp_path / "old.pth", message)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"w": [2**40]}, "SafetensorError"),
        ({"w": [2], "v": [2]}, "SafetensorError"),
        ({"\x1b[2J": [2]}, r"a tensor is called '\\x1b\[2J'"),
    ],
)
def test_safetensors_that_lie_are_refused(tmp_path: Path, header, message: str):
    entries = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0]]}
        for name, shape in header.items()
    }
    text = json.dumps(entries).encode()
    content = struct.pack("<Q", len(text)) + text + bytes(8)
    (tmp_path / "lies.safetensors").write_bytes(content)
    _refused(tmp_path / "lies.safetensors", message)


@pytest.mark.parametrize("start", [b"\x40" + bytes(7) + b'{"', b"PK", b"\x80\x02"])
def test_a_file_beyond_the_memory_is_not_read(tmp_path: Path, start: bytes):
    path = tmp_path / "large.pt"
    path.write_bytes(start)
    os.truncate(path, 1 << 42)
    with pytest.raises(ValueError, match=r"large\.pt: .*this machine has"):
        read_torch_checkpoint(path)


def test_a_long_list_of_files_is_not_read(tmp_path: Path):
    path = tmp_path / "many.pt"
    listed = b"PK\1\2" + bytes(42)
    size = len(listed) * 100_000
    end = b"PK\5\6" + bytes(8) + struct.pack("<II", size, 2) + bytes(2)
    path.write_bytes(b"PK" + listed * 100_000 + end)
    with pytest.raises(ValueError, match=r"many\.pt: .*its list of members takes"):
        read_torch_checkpoint(path)
