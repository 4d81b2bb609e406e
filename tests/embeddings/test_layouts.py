"""Descriptors as other frameworks leave them."""

import pickle

import numpy as np
import pytest
from scipy.io import savemat

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
    with pytest.raises(ValueError, match="query_cam: expected whole numbers"):
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
