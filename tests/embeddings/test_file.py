"""The embeddings file: every key, every fault it must name, averaging."""

import dataclasses
import json
import re
import zipfile
from typing import Any

import numpy as np
import pytest

from dex_jax.embeddings import EmbeddingFile, average, load, save


def make_file(seed: int = 0, dimension: int = 4, **fields: Any) -> EmbeddingFile:
    rng = np.random.default_rng(seed)
    given = {
        "query_features": rng.normal(size=(2, dimension)).astype(np.float32),
        "gallery_features": rng.normal(size=(3, dimension)).astype(np.float32),
        "query_names": ("q/a.jpg", "q/b.jpg"),
        "gallery_names": ("g/a.jpg", "g/b.jpg", "g/ü.jpg"),
        "query_identities": np.array([4, 9]),
        "gallery_identities": np.array([9, -1, 4]),
        "query_cameras": np.array([1, 2]),
        "gallery_cameras": np.array([2, 2, -1]),
        "query_tracklets": np.array([-1, -1]),
        "gallery_tracklets": np.array([5, -1, -1]),
        "meta": {"model": "x", "scales": [0.9, 1.0]},
        "extra": {"x_quality": np.array([0.5, 0.25])},
    }
    return EmbeddingFile(**{**given, **fields})


def raw(tmp_path, **changes):
    """Writes a valid archive with some keys changed; None removes one."""
    path = tmp_path / "raw.npz"
    save(make_file(), path)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays |= changes
    kept = {name: value for name, value in arrays.items() if value is not None}
    np.savez(path, **kept)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_round_trip_keeps_everything(tmp_path, dtype):
    file = make_file()
    save(file, tmp_path / "e.npz", dtype=dtype)
    again = load(tmp_path / "e.npz")
    for field in dataclasses.fields(file):
        old, new = getattr(file, field.name), getattr(again, field.name)
        if field.name.endswith("features"):
            assert new.dtype == np.float32
            np.testing.assert_array_equal(new, old.astype(dtype).astype(np.float32))
        elif field.name == "extra":
            np.testing.assert_array_equal(new["x_quality"], old["x_quality"])
        elif isinstance(old, np.ndarray):
            np.testing.assert_array_equal(new, old)
            assert new.dtype == np.int64
        else:
            assert new == old
    assert list(tmp_path.iterdir()) == [tmp_path / "e.npz"]


def test_every_key_reads_without_pickle_and_as_documented(tmp_path):
    save(make_file(), tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz", allow_pickle=False) as archive:
        kinds = {name: archive[name].dtype.kind for name in archive.files}
        assert str(archive["format"]) == "dex_jax/embeddings"
        assert archive["version"] == 1 and archive["version"].dtype == np.int64
        assert json.loads(str(archive["meta"]))["model"] == "x"
    assert kinds["query_names"] == "U" and kinds["gallery_tracklets"] == "i"


def test_labels_are_optional_in_pairs(tmp_path):
    labels: dict[str, Any] = {
        f"{side}_{label}": None
        for side in ("query", "gallery")
        for label in ("identities", "cameras", "tracklets")
    }
    bare = make_file(**labels)
    save(bare, tmp_path / "e.npz")
    assert load(tmp_path / "e.npz").gallery_identities is None
    with pytest.raises(
        ValueError, match="query_cameras: is missing, while gallery_cam"
    ):
        make_file(query_cameras=None)


def test_images_without_tracklet_stand_alone():
    assert make_file().gallery_tracklet_ids().tolist() == [5, 6, 7]
    bare = make_file(query_tracklets=None, gallery_tracklets=None)
    assert bare.gallery_tracklet_ids().tolist() == [0, 1, 2]


NAN = np.array([[1, 2], [np.nan, 1], [1, 1]], np.float32)
ZERO = np.array([[1, 2], [3, 1], [0, 0]], np.float32)
TWO = np.ones((2, 2), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"format": np.array("other")},
            "format: expected 'dex_jax/embeddings', got 'o",
        ),
        (
            {"version": None},
            "key 'version' is missing; found format, gallery_cameras, ",
        ),
        ({"version": np.array([1])}, r"version: expected 1, got \[1\]"),
        ({"format": np.array(7)}, r"format: expected one word, got shape \(\) of int"),
        ({"meta": np.array(["{}"])}, r"meta: expected one word, got shape \(1,\)"),
        ({"meta": np.array("[" * 100_000)}, "meta: .*nested too deeply"),
        ({"normalized": np.ones(2, bool)}, r"normalized: expected True or False, got"),
        (
            {"format": None, "gallery_features": None},
            r"key 'gallery_features' is missing; .*dex_jax\.embeddings\.save",
        ),
        (
            {"format": None, "query_names": None},
            "query_names: is missing, while others are given",
        ),
        ({"version": np.array(2)}, "version: expected 1, got 2"),
        ({"gallery_names": None}, "key 'gallery_names' is missing"),
        ({"meta": np.array("{")}, "meta: is not JSON"),
        ({"meta": np.array("[1]")}, "meta: expected a JSON object, got list"),
        ({"query_features": np.ones(4, np.float32)}, "query_features: expected rows"),
        ({"query_features": np.ones((0, 4), np.float32)}, "query_features: is empty"),
        ({"query_features": np.ones((2, 4), int)}, "query_features: expected float32"),
        ({"query_features": TWO}, "query_features has dimension 2 and gallery_feat.*4"),
        ({"gallery_features": NAN}, "gallery_features: 1 row.*NaN.*first row 1"),
        ({"gallery_features": ZERO}, "gallery_features: 1 row.*zero.*first row 2"),
        ({"query_names": np.array(["a"])}, r"query_names: expected 2 words.*\(1,\)"),
        ({"query_names": np.array([1, 2])}, "query_names: expected 2 words.*int64"),
        ({"query_names": np.array(["a", "a"])}, "query_names: 'a' occurs twice.*row 1"),
        (
            {"query_names": np.array(["a", "/b"])},
            "query_names: row 1: expected a relative",
        ),
        (
            {"query_names": np.array(["../a", "b"])},
            "query_names: row 0: expected a relative",
        ),
        (
            {"query_identities": np.array([1])},
            r"query_identities: expected shape \(2,\)",
        ),
        (
            {"query_identities": np.array([1.5, 2])},
            r"query_identities: row 0 is 1\.5; expected a whole number",
        ),
        ({"query_identities": np.array([1, -2])}, "query_identities: row 1 is -2"),
        ({"query_identities": np.array([1, np.inf])}, "query_identities: row 1 is inf"),
        (
            {"query_identities": np.array([1, 2**63], np.uint64)},
            r"query_identities: row 1 is 9223372036854775808; expected less than 2\^63",
        ),
        (
            {"query_identities": np.array([True, False])},
            "query_identities: expected whole numbers or words, got dtype bool",
        ),
        (
            {"query_identities": np.array(["a", "b"])},
            "query_identities: holds words and gallery_identities numbers",
        ),
        (
            {"gallery_tracklets": np.array([5, 5, 5])},
            "gallery_tracklets: tracklet 5.* 9 and 4",
        ),
        ({"gallery_tracklets": np.array([5, 5])}, r"gallery_tracklets: expected shape"),
        (
            {"normalized": np.array(True)},
            "normalized: is true, but row 0 of query_feat",
        ),
    ],
)
def test_faults_name_file_key_and_value(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"raw\.npz: {message}"):
        load(raw(tmp_path, **changes))


def test_pickled_content_is_refused(tmp_path):
    path = raw(tmp_path)
    names = np.array(["a", None], object)
    with np.load(path) as archive:
        arrays: dict[str, Any] = {**archive, "query_names": names}
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="key 'query_names' holds Python objects"):
        load(path)


def test_damaged_files_are_refused(tmp_path):
    path = raw(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"not an \.npz file, or cut short"):
        load(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match=r"not an \.npz file"):
        load(path)
    at = whole.index(b"gallery_features.npy") + 200
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    assert zipfile.is_zipfile(path)
    with pytest.raises(ValueError, match=r"raw\.npz: .*(damaged|CRC|cannot be read)"):
        load(path)
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such embeddings file"):
        load(tmp_path / "none.npz")


def test_warnings_for_what_is_changed_or_ignored(tmp_path):
    precise = np.full((2, 4), 0.1)
    with pytest.warns(UserWarning, match="query_features: float64 is narrowed"):
        load(raw(tmp_path, query_features=precise))
    with pytest.warns(UserWarning, match="unknown key 'querry_names' is ignored"):
        load(raw(tmp_path, querry_names=np.array(["a"])))


def test_save_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a name ending in \.npz"):
        save(make_file(), tmp_path / "e.npy")
    with pytest.raises(ValueError, match="dtype: expected one of"):
        save(make_file(), tmp_path / "e.npz", dtype="bfloat16")
    huge = np.full((2, 4), 1e6, np.float32)
    with pytest.raises(ValueError, match="dtype: query_features holds values beyond"):
        save(make_file(query_features=huge), tmp_path / "e.npz", dtype="float16")
    with pytest.raises(ValueError, match="extra: expected plain arrays with prefix"):
        make_file(extra={"quality": np.zeros(2)})
    assert not list(tmp_path.iterdir())


def test_average_is_the_unit_mean_of_unit_rows():
    a, b = make_file(0), make_file(1)
    unit = [
        f.gallery_features / np.linalg.norm(f.gallery_features, axis=1, keepdims=True)
        for f in (a, b)
    ]
    mean = unit[0] + unit[1]
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    joined = average([a, b])
    np.testing.assert_allclose(joined.gallery_features, mean, atol=1e-6)
    assert joined.normalized and joined.query_names == a.query_names
    wide = average([a, make_file(1, dimension=3)], method="concat")
    assert wide.query_features.shape == (2, 7)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"gallery_names": ("g/a.jpg", "g/c.jpg", "g/b.jpg")},
         "run2: gallery_names: row 1 is 'g/c.jpg', in run1 'g/b.jpg'"),
        ({"query_identities": np.array([4, 8])}, "run2: query_identities differ from"),
        ({"dimension": 3}, "run2: has dimension 3 and run1 has 4"),
    ],
)  # fmt: skip
def test_average_refuses_what_does_not_match(other, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        average([make_file(), make_file(1, **other)], labels=["run1", "run2"])


def test_average_refuses_other_sizes_and_nothing():
    short = dataclasses.replace(
        make_file(),
        query_features=np.ones((1, 4), np.float32),
        query_names=("q/a.jpg",),
        query_identities=np.array([4]),
        query_cameras=np.array([1]),
        query_tracklets=np.array([-1]),
    )
    with pytest.raises(ValueError, match="file 1: holds 1 query images and file 0 2"):
        average([make_file(), short])
    with pytest.raises(ValueError, match="files: expected at least one"):
        average([])


def numbers(file: EmbeddingFile, label: str) -> list[int]:
    return getattr(file, label).tolist()


def test_floats_of_pandas_are_whole_numbers_and_gaps_are_none():
    file = make_file(
        query_identities=np.array([4.0, np.nan]),
        gallery_identities=np.array([9, -1.0, 4], np.float32),
        query_cameras=[1, None],
    )
    words = make_file(query_cameras=["1.0", "NA"], gallery_cameras=["1", "-1.0", "b"])
    assert numbers(words, "query_cameras") == [0, -1]
    assert numbers(words, "gallery_cameras") == [0, -1, 1]
    assert numbers(file, "query_identities") == [4, -1]
    assert numbers(file, "gallery_identities") == [9, -1, 4]
    assert file.query_cameras is not None and file.query_cameras.dtype == np.int64
    assert numbers(file, "query_cameras") == [1, -1] and "words" not in file.meta


def test_words_get_numbers_and_are_kept(tmp_path):
    nothing = np.array([float("nan"), None, "bus_2"], object)
    file = make_file(
        query_identities=["plate 10", "bus_2"],
        gallery_identities=nothing,
        gallery_cameras=np.array(["north", "-1", "south"]),
        query_cameras=np.array([b"south", b"west"]),
    )
    assert numbers(file, "query_identities") == [1, 0]
    assert numbers(file, "gallery_identities") == [-1, -1, 0]
    assert numbers(file, "gallery_cameras") == [0, -1, 1]
    assert numbers(file, "query_cameras") == [1, 2]
    words = {"identities": ["bus_2", "plate 10"], "cameras": ["north", "south", "west"]}
    assert file.meta["words"] == words and file.meta["model"] == "x"
    save(file, tmp_path / "e.npz")
    assert load(tmp_path / "e.npz").meta["words"] == words


@pytest.mark.parametrize("twin", ["1 ", "0001", "01"])
def test_words_that_may_mean_one_are_named(twin):
    with pytest.warns(UserWarning, match="may be meant as one label; write it alike"):
        file = make_file(query_cameras=["1", "b"], gallery_cameras=["1", twin, "b"])
    assert len(set(numbers(file, "gallery_cameras"))) == 3


def test_words_of_columns_with_gaps_are_read_as_in_a_manifest():
    """`frame["vehicle"].to_numpy(str)` of whole numbers, with gaps on one side."""
    file = make_file(
        query_identities=["3", "7"],
        gallery_identities=["7.0", "nan", "-1.00"],
        query_cameras=["NA", "gate"],
        gallery_cameras=["null", "NaT", "gate"],
    )
    assert numbers(file, "query_identities") == [0, 1]
    assert numbers(file, "gallery_identities") == [1, -1, -1]
    assert numbers(file, "query_cameras") == [-1, 0]
    assert numbers(file, "gallery_cameras") == [-1, -1, 0]
    assert file.meta["words"] == {"identities": ["3", "7"], "cameras": ["gate"]}


@pytest.mark.parametrize(
    ("kind", "limit"), [(np.float16, 11), (np.float32, 24), (np.float64, 53)]
)
def test_floats_that_may_have_lost_their_last_digits_are_refused(kind, limit):
    largest = np.array([2**limit - 1, 1], kind)
    file = make_file(query_identities=largest)
    assert numbers(file, "query_identities") == [2**limit - 1, 1]
    # 2^53 + 1 as a float64 is 2^53, another vehicle.
    expected = rf"query_identities: row 0 is .*; expected less than 2\^{limit}"
    with pytest.raises(ValueError, match=expected):
        make_file(query_identities=np.array([2**limit + 1, 1], kind))


def test_arrays_of_other_programs_need_features_alone(tmp_path):
    path = tmp_path / "theirs.npz"
    np.savez(path, query_features=np.eye(1, 4), gallery_features=np.eye(3, 4))
    file = load(path)
    assert file.query_names == ("query/000001",) and len(file.gallery_names) == 3
    assert file.meta == {"names": "numbered", "source": "theirs.npz"}
    np.savez(
        path,
        query_features=np.eye(1, 4),
        gallery_features=np.eye(3, 4),
        query_names=np.array(["q"]),
        gallery_names=np.array(list("abc")),
    )
    assert load(path).gallery_names == ("a", "b", "c")


def test_a_file_that_is_there_can_be_kept(tmp_path):
    path = tmp_path / "e.npz"
    save(make_file(), path)
    with pytest.raises(FileExistsError, match=r"e\.npz: is there already"):
        save(make_file(1), path, replace=False)
    np.testing.assert_array_equal(load(path).query_features, make_file().query_features)
    assert list(tmp_path.iterdir()) == [path]
