"""Descriptors as other frameworks leave them."""

import os
import pickle
import struct
import zlib

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix

from dex_jax.embeddings import save
from dex_jax.embeddings._layouts import read

QUERY = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
GALLERY = np.arange(2, 14, dtype=np.float32).reshape(3, 4)


def test_mat_labels_are_ravelled(tmp_path):
    path = tmp_path / "pytorch_result.mat"
    savemat(
        path,
        {
            "query_f": QUERY,
            "gallery_f": GALLERY,
            "query_label": np.array([[3, 7]]),
            "gallery_label": np.array([[7, -1, 3]]),
            "query_cam": np.array([[1, 2]]),
            "gallery_cam": np.array([[6.0, 1.0, 1.0]]),
        },
    )
    file = read(path)
    np.testing.assert_array_equal(file.gallery_features, GALLERY)
    assert file.gallery_identities is not None and file.gallery_cameras is not None
    assert file.gallery_identities.tolist() == [7, -1, 3]
    assert file.gallery_cameras.tolist() == [6, 1, 1]
    assert file.query_names == ("query/000001", "query/000002")
    assert file.gallery_tracklets is None and file.meta["source"] == path.name


def test_mat_without_labels_and_with_more(tmp_path):
    path = tmp_path / "dump.mat"
    savemat(path, {"query_f": QUERY, "gallery_f": GALLERY, "mquery_f": QUERY})
    with pytest.warns(UserWarning, match="not used: mquery_f"):
        assert read(path).query_identities is None
    savemat(path, {"query_f": QUERY})
    with pytest.raises(ValueError, match="gallery_f is missing; found query_f"):
        read(path)
    savemat(
        path,
        {"query_f": QUERY, "gallery_f": GALLERY, "query_label": [[1, 2]]},
    )
    with pytest.raises(ValueError, match="gallery_identities: is missing"):
        read(path)
    savemat(
        path,
        {
            "query_f": QUERY,
            "gallery_f": GALLERY,
            "query_cam": [[1.5, 2]],
            "gallery_cam": [[1, 2, 3]],
        },
    )
    with pytest.raises(ValueError, match=r"query_cam: row 0 is 1\.5; expected a whole"):
        read(path)
    texts = np.array(["bus", "car"])
    savemat(path, {"query_f": QUERY, "gallery_f": GALLERY, "query_label": texts})
    with pytest.raises(ValueError, match=r"dump\.mat: query_label is text; .*grp2idx"):
        read(path)
    for other, mend in (
        (np.array(["bus", "car"], object), "a cell array; .*cell2mat makes"),
        (csc_matrix(QUERY), "a sparse array; .*full makes"),
        (QUERY * 1j, "complex; .*real makes"),
    ):
        key = "query_label" if other.dtype == object else "query_f"
        savemat(path, {"query_f": QUERY, "gallery_f": GALLERY, key: other})
        with pytest.raises(ValueError, match=rf"dump\.mat: {key} is {mend}"):
            read(path)
    path.write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(ValueError, match="cannot be read as MATLAB 5"):
        read(path)


def test_folder_of_two_arrays(tmp_path):
    np.save(tmp_path / "query.npy", QUERY)
    with pytest.raises(FileNotFoundError, match=r"gallery\.npy: the folder lacks"):
        read(tmp_path)
    np.save(tmp_path / "gallery.npy", GALLERY)
    np.testing.assert_array_equal(read(tmp_path).query_features, QUERY)
    np.save(tmp_path / "gallery.npy", GALLERY[:, :3])
    with pytest.raises(ValueError, match="dimension 4 and gallery_features has 3"):
        read(tmp_path)


def test_one_array_is_split(tmp_path):
    path = tmp_path / "feats.npy"
    np.save(path, np.concatenate([QUERY, GALLERY]))
    file = read(path, num_query=2)
    np.testing.assert_array_equal(file.query_features, QUERY)
    np.testing.assert_array_equal(file.gallery_features, GALLERY)
    with pytest.raises(ValueError, match="num_query: is needed to split"):
        read(path)
    with pytest.raises(ValueError, match=r"num_query: 5 queries and.*\(5, 4\)"):
        read(path, num_query=5)
    with pytest.raises(ValueError, match="num_query: expected at least 1, got 0"):
        read(path, num_query=0)


def test_pickles_are_refused_under_any_name(tmp_path):
    for name in ("features.pkl", "model.pth"):
        (tmp_path / name).write_bytes(pickle.dumps({"query_f": [1]}))
        with pytest.raises(ValueError, match=f"{name}: is a pickle"):
            read(tmp_path / name)
    np.save(tmp_path / "hidden.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"hidden\.npy: cannot be read as a plain"):
        read(tmp_path / "hidden.npy", num_query=1)


def test_own_files_and_unknown_ones(tmp_path):
    np.save(tmp_path / "feats.npy", np.concatenate([QUERY, GALLERY]))
    file = read(tmp_path / "feats.npy", num_query=2)
    save(file, tmp_path / "e.npz")
    assert read(tmp_path / "e.npz").gallery_names == file.gallery_names
    with pytest.raises(ValueError, match=r"num_query: only a single \.npy is split"):
        read(tmp_path / "e.npz", num_query=2)
    (tmp_path / "e.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"e\.csv: expected \.npz"):
        read(tmp_path / "e.csv")
    with pytest.raises(FileNotFoundError, match=r"none\.mat: no such file or folder"):
        read(tmp_path / "none.mat")


@pytest.mark.parametrize("gallery", [GALLERY, GALLERY[:2]])
def test_mat_with_a_column_an_image(tmp_path, gallery):
    path = tmp_path / "oxford.mat"
    savemat(path, {"Q": QUERY.T, "X": gallery.T})
    file = read(path)
    np.testing.assert_array_equal(file.query_features, QUERY)
    np.testing.assert_array_equal(file.gallery_features, gallery)


def test_labels_and_names_beside_arrays(tmp_path):
    labels = {
        "query_identities": [7.0, np.nan],
        "gallery_identities": [7, -1, 3],
        "query_names": ["q/1.jpg", "q/2.jpg"],
        "gallery_names": ["a.jpg", "b.jpg", "c.jpg"],
        "query_cameras": ["north", "south"],
        "gallery_cameras": ["south", "", "south"],
    }
    for name, values in {"query": QUERY, "gallery": GALLERY, **labels}.items():
        np.save(tmp_path / f"{name}.npy", values)
    file = read(tmp_path)
    assert file.query_identities is not None and file.gallery_cameras is not None
    assert file.query_identities.tolist() == [7, -1]
    assert file.gallery_names == ("a.jpg", "b.jpg", "c.jpg")
    assert file.gallery_cameras.tolist() == [1, -1, 1]
    (tmp_path / "gallery_identities.npy").unlink()
    with pytest.raises(ValueError, match="gallery_identities: is missing"):
        read(tmp_path)
    stem = tmp_path / "feats"
    np.save(stem, np.concatenate([QUERY, GALLERY]))
    np.save(f"{stem}_identities", [1, 2, 2, 1, 5])
    one = read(tmp_path / "feats.npy", num_query=2)
    assert one.query_identities is not None and one.gallery_identities is not None
    assert one.query_identities.tolist() == [1, 2]
    assert one.gallery_identities.tolist() == [2, 1, 5]
    np.save(f"{stem}_identities", [1, 2, 2, 1])
    with pytest.raises(ValueError, match=r"feats_identities\.npy: expected 5 entries"):
        read(tmp_path / "feats.npy", num_query=2)


def test_every_image_is_a_query_to_all(tmp_path):
    np.save(tmp_path / "feats.npy", GALLERY)
    np.save(tmp_path / "feats_identities.npy", [1, 2, 1])
    file = read(tmp_path / "feats.npy", leave_one_out=True)
    np.testing.assert_array_equal(file.query_features, file.gallery_features)
    assert file.query_names == file.gallery_names
    assert file.query_names[0] == "image/000001"
    assert file.query_identities is not None
    assert file.query_identities.tolist() == [1, 2, 1]


def test_what_is_no_plain_file_is_refused(tmp_path):
    for name in ("a.npz", "a.mat", "a.npy"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name}: is a pipe"):
            read(tmp_path / name, num_query=1 if name == "a.npy" else None)
    (tmp_path / "b.npz").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"b\.npz: no such"):
        read(tmp_path / "b.npz")


def packed_bytes(count: int) -> bytes:
    """A MATLAB file whose array of doubles is stored as so many bytes of 1."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    parts = [struct.pack("<II", 6, 0), struct.pack("<ii", count // 64, 64), b"query_f"]
    body = b"".join(map(element, (6, 5, 1), parts)) + element(1, b"\1" * count)
    packed = zlib.compress(element(14, body))
    header = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x100) + b"IM"
    return header + struct.pack("<II", 15, len(packed)) + packed


def test_what_a_mat_file_expands_to_has_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "a.mat"
    path.write_bytes(packed_bytes(1 << 24))  # 128 MiB as doubles
    with pytest.raises(ValueError, match=r"a\.mat: .*set DEX_JAX_MAX_EXPANSION higher"):
        read(path)
    monkeypatch.setenv("DEX_JAX_MAX_EXPANSION", "10000")
    with pytest.raises(ValueError, match="gallery_f is missing; found query_f"):
        read(path)


def test_a_mat_file_beyond_the_memory_is_named(tmp_path):
    path = tmp_path / "a.mat"
    path.touch()
    os.truncate(path, 1 << 42)
    with pytest.raises(ValueError, match=r"a\.mat: .*this machine has"):
        read(path)
