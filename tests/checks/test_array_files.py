"""Numpy's files from anybody: right arrays, or an error, within limits."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dex_jax._checks import _array_files, check_memory, read_npy, read_npz

pytestmark = pytest.mark.quick

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(2, 0, 1),
    np.array(7),
    np.zeros((0, 3)),
    np.array([True, False]),
    np.array(["ü", "wider word", ""]),
    np.array([b"ab", b"c"]),
    np.array([1 + 2j]),
    np.arange(4, dtype=">i4"),
    np.array(["ab", "c"], ">U2"),
    np.array([1.5, np.nan], np.float16),
]


def npy(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def header(text: bytes, values: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    width = "<H" if version == b"\x01\x00" else "<I"
    return b"\x93NUMPY" + version + struct.pack(width, len(text)) + text + values


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_come_back_as_numpy_reads_them(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", a=array, b=array)
    found = read_npy(tmp_path / "a.npy")
    assert found.dtype == array.dtype and found.flags.writeable
    np.testing.assert_array_equal(found, array)
    both = read_npz(tmp_path / "a.npz")
    assert list(both) == ["a", "b"]
    np.testing.assert_array_equal(both["b"], array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_versions(tmp_path, version):
    (tmp_path / "a.npy").write_bytes(npy(np.eye(2), version=version))
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), np.eye(2))


HEAD = b"{'descr': '<f8', 'fortran_order': False, 'shape': %s}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no array in numpy's format"),
        (b"\x93NUMPY", "no array in numpy's format"),
        (b"PK\x03\x04", r"is an \.npz archive"),
        (npy(np.eye(2))[:-1], "is cut short: shape"),
        (npy(np.eye(2))[:40], "its header is cut short"),
        (npy(np.eye(2)) + b"x", "holds more than it says"),
        (b"\x93NUMPY\x09\x00" + npy(np.eye(2))[8:], "version is 9.0, unknown"),
        (header(HEAD % b"(50000000000,)"), "needs 400000000000 bytes, 0 follow"),
        (header(HEAD % (b"(%s)" % (b"99999999999999999999," * 8))), "is cut short"),
        (header(HEAD % b"(-1,)"), "its header is damaged"),
        (header(HEAD % b"(True,)", b"12345678"), "its header is damaged"),
        (header(HEAD % b"[1]", b"12345678"), "its header is damaged"),
        (header(HEAD % b"(1,"), "its header is damaged"),
        (header(b"[" * 9000), "its header is damaged"),
        (header(b"(" * 150 + b")" * 150), "its header is damaged"),
        (header(b"__import__('os').abort()"), "its header is damaged"),
        (header(b"{'descr': '<f8'}"), "its header is damaged"),
        (header(b"\xff\xfe\x00"), "its header is damaged"),
        (header(b"1" * 5000), "its header is damaged"),
        (header(b" " * 20_000), "header claims 20000 bytes, at most 10000"),
        (header(b" " * 70_000, version=b"\x02\x00"), "header claims 70000 bytes"),
        (header(HEAD.replace(b"<f8", b"|O") % b"(1,)", b"1" * 8), "Python objects"),
        (header(HEAD.replace(b"<f8", b"<M8[s]") % b"(1,)", b"1" * 8), "its dtype date"),
        (header(HEAD.replace(b"<f8", b"f8,f8") % b"(1,)", b"1" * 16), "its dtype "),
        (header(HEAD.replace(b"<f8", b"<U0") % b"(1,)"), "its dtype <U0"),
        (header(HEAD.replace(b"<f8", b"|V2") % b"(1,)", b"12"), "its dtype .V2"),
        (header(HEAD.replace(b"<f8", b"<U1") % b"(1,)", b"\xff" * 4), "no Unicode"),
        (header(HEAD.replace(b"<f8", b"|b1") % b"(1,)", b"\x07"), "no truth values"),
        (header(HEAD % (b"(%s)" % (b"1," * 40)), b"12345678"), "has 40 dimensions"),
    ],
)
def test_damage_of_an_array_is_named(tmp_path, content, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.npy: .*{message}"):
        read_npy(path)
    if content[:2] != b"PK":
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("k.npy", content)
        with pytest.raises(ValueError, match=rf"a\.npz: key 'k' .*{message}"):
            read_npz(tmp_path / "a.npz")


def archive(path: Path, *members: tuple[str, bytes], **options) -> bytes:
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members:
            file.writestr(name, content)
    return path.read_bytes()


def test_archives_that_are_none(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(npy(np.eye(2)))
    with pytest.raises(ValueError, match=r"a\.npz: is a single \.npy array"):
        read_npz(path)
    path.write_text("words")
    with pytest.raises(ValueError, match=r"a\.npz: not an \.npz file, or cut short"):
        read_npz(path)
    archive(path, ("readme.txt", b"words"))
    with pytest.raises(ValueError, match=r"member 'readme\.txt' is no array"):
        read_npz(path)


def test_a_name_twice_is_an_error(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.warns(UserWarning, match="Duplicate"):
        archive(path, ("k.npy", npy(np.eye(2))), ("k.npy", npy(np.eye(3))))
    with pytest.raises(ValueError, match=r"a\.npz: key 'k' occurs twice"):
        read_npz(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_are_refused(tmp_path, method):
    path = tmp_path / "a.npz"
    archive(path, ("k.npy", npy(np.eye(2))), compression=method)
    with pytest.raises(ValueError, match=f"key 'k' is compressed by method {method}"):
        read_npz(path)


def test_an_encrypted_member_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    content = bytearray(archive(path, ("k.npy", npy(np.eye(2)))))
    at = content.rindex(b"PK\x01\x02")
    content[at + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="key 'k' is encrypted"):
        read_npz(path)


def test_what_expands_too_far_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    zeros = np.zeros(1 << 27, np.uint8)  # 128 MiB of it fit in 130 kB
    np.savez_compressed(path, k=zeros)

    def read(*_):
        raise AssertionError("a member was read")

    with monkeypatch.context() as patch:
        patch.setattr(_array_files, "_read_array", read)
        with pytest.raises(ValueError, match=r"claims to hold .* set DEX_JAX_MAX_EXP"):
            read_npz(path)
    monkeypatch.setenv("DEX_JAX_MAX_EXPANSION", "2000")
    assert read_npz(path)["k"].nbytes == 1 << 27
    for value in ("-1", "many", "inf", "nan", ""):
        monkeypatch.setenv("DEX_JAX_MAX_EXPANSION", value)
        with pytest.raises(ValueError, match="MAX_EXPANSION: expected 1 or more, got"):
            read_npz(path)


def test_a_member_may_not_lie_about_its_size(tmp_path):
    """The directory says how much a member holds; the array says it again."""
    path = tmp_path / "a.npz"
    content = bytearray(archive(path, ("k.npy", npy(np.eye(2)))))
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 100_000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: key 'k' cannot be read: holds more"):
        read_npz(path)


def test_a_flipped_value_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    content = bytearray(archive(path, ("k.npy", npy(np.arange(100.0)))))
    content[300] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: damaged or cut short: Bad CRC"):
        read_npz(path)


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(_array_files, "_MOST_MEMBERS", 2)
    archive(tmp_path / "a.npz", *((f"{i}.npy", npy(np.eye(1))) for i in range(3)))
    with pytest.raises(ValueError, match="holds 3 members, at most 2"):
        read_npz(tmp_path / "a.npz")


def test_more_than_the_machine_has(tmp_path):
    with pytest.raises(ValueError, match="needs 1152921504606846976 bytes, this mach"):
        check_memory(1 << 60)
    path = tmp_path / "a.npy"
    length = 1 << 40
    path.write_bytes(header(HEAD % (b"(%d,)" % (length // 8))))
    with path.open("r+b") as file:  # a file of holes, as long as it claims
        file.truncate(path.stat().st_size + length)
    with pytest.raises(ValueError, match=f"needs {length} bytes, this machine has"):
        read_npy(path)


@pytest.mark.parametrize("wide", [False, True])
def test_a_long_list_of_members_is_not_read(tmp_path, wide):
    name = b"a" * 65_000
    entry = b"PK\1\2" + bytes(24) + struct.pack("<H", len(name)) + bytes(16) + name
    listed = entry * 70
    end = b"PK\5\6" + bytes(8) + struct.pack("<II", len(listed), 0) + bytes(2)
    if wide:
        long_end = b"PK\6\6" + bytes(36) + struct.pack("<QQ", len(listed), 0)
        locator = b"PK\6\7" + struct.pack("<IQI", 0, len(listed), 1)
        end = long_end + locator + end[:12] + b"\xff" * 8 + end[20:]
    path = tmp_path / "a.npz"
    path.write_bytes(listed + end)
    with pytest.raises(ValueError, match=r"a\.npz: its list of members takes 4\d{6} "):
        read_npz(path)
