import datetime
import tracemalloc
from decimal import Decimal

import pytest
from PIL import Image

from dex_jax.data import _manifest_parquet, load

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

NAMES = ["a.png", "b.png", "c.png", "d.png"]


@pytest.fixture
def write(tmp_path):
    """Writes a table with some columns as Parquet beside four tiny images."""
    for name in NAMES:
        Image.new("RGB", (6, 4)).save(tmp_path / name)

    def write(**columns):
        path = tmp_path / "cars.parquet"
        given = {"path": NAMES, "split": ["train", "train", "query", "gallery"]}
        parquet.write_table(pyarrow.table(given | columns), path)
        return path

    return write


IDENTITIES = {
    "double": pyarrow.array([1.0, 2.0, 3.0, -1.0]),
    "float": pyarrow.array([1.0, 2.0, 3.0, -1.0], pyarrow.float32()),
    "int64": pyarrow.array([1, 2, 3, -1]),
    "int8": pyarrow.array([1, 2, 3, -1], pyarrow.int8()),
    "decimal": pyarrow.array([Decimal("1.00"), Decimal(2), Decimal(3), Decimal(-1)]),
    "words": pyarrow.array(["1", "2.0", "3", "-1.0"]),
    "dictionary": pyarrow.array(["1", "2", "3", "-1"]).dictionary_encode(),
    "long words": pyarrow.array(["1", "2", "3", "-1"], pyarrow.large_string()),
}


@pytest.mark.parametrize("kind", list(IDENTITIES))
def test_labels_of_every_type_are_the_same(write, kind):
    with pytest.warns(UserWarning, match="1 identities that the gallery lacks"):
        data = load("manifest", root=write(identity=IDENTITIES[kind]))
    assert data.words["identities"] == ["1", "2", "3"]
    assert data.train.identities.tolist() == [0, 1]
    assert data.query.identities.tolist() == [2]
    assert data.gallery.identities.tolist() == [-1]


@pytest.mark.parametrize(
    "cameras",
    [
        pyarrow.array([7, None, 8, None]),
        pyarrow.array([7.0, float("nan"), 8.0, None]),
        pyarrow.array(["7", "", "8", "nan"]),
    ],
)
def test_null_and_nan_are_no_label(write, cameras):
    data = load("manifest", root=write(identity=[1, 2, 3, 3], camera=cameras))
    assert data.words["cameras"] == ["7", "8"]
    assert data.train.cameras.tolist() == [0, -1]
    assert data.gallery.cameras.tolist() == [-1]


def test_a_gap_in_train_is_named(write):
    path = write(identity=pyarrow.array([1.0, float("nan"), 3.0, 3.0]))
    with pytest.raises(
        ValueError, match="line 3, column 'identity': train row without"
    ):
        load("manifest", root=path)


@pytest.mark.parametrize("value", [1.5, float("inf"), -2.25])
def test_a_fraction_is_no_label(write, value):
    path = write(identity=pyarrow.array([1.0, 2.0, value, 3.0]))
    with pytest.raises(ValueError, match=f"line 4, .* not a whole number: '{value}'"):
        load("manifest", root=path)


@pytest.mark.parametrize(
    "values",
    [
        [True, False, True, True],
        [datetime.date(2020, 1, 1)] * 4,
        [datetime.datetime(2020, 1, 1)] * 4,
        [b"1"] * 4,
        [[1], [2], [3], [3]],
        [{"a": 1}] * 4,
    ],
    ids=["flags", "dates", "times", "bytes", "lists", "records"],
)
def test_other_types_are_refused(write, values):
    with pytest.raises(ValueError, match=r"column 'identity': column of type .*whole"):
        load("manifest", root=write(identity=pyarrow.array(values)))


def test_words_are_not_numbers(write):
    with pytest.raises(ValueError, match=r"column 'split': column of type int64"):
        load("manifest", root=write(split=[1, 2, 3, 4]))


def test_further_columns_may_be_anything(write):
    further = {"x_when": [datetime.date(2020, 1, 1)] * 4, "x_flag": [True] * 4}
    data = load("manifest", root=write(identity=[1, 2, 3, 3], **further))
    assert len(data.train) == 2
    with pytest.raises(ValueError, match="column 'when': unknown column"):
        load("manifest", root=write(identity=[1, 2, 3, 3], when=[1, 2, 3, 4]))


def test_a_size_is_refused_before_the_rows_are_read(write, monkeypatch):
    path = write(identity=[1, 2, 3, 3])
    monkeypatch.setattr(_manifest_parquet, "_MOST_ROWS", 3)
    with pytest.raises(ValueError, match=r"cars.parquet: claims 4 rows of"):
        load("manifest", root=path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(50) + b"PAR1"])
def test_what_is_no_table(content, tmp_path):
    path = tmp_path / "cars.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cars.parquet: cannot be read as a Parquet"):
        load("manifest", root=path)


def test_a_small_file_is_not_believed_to_be_large(tmp_path):
    """Words and rows that are all alike take no bytes in a file."""
    path = tmp_path / "cars.parquet"
    split = pyarrow.array(["gallery"] * 200_000)
    same = pyarrow.table({"path": pyarrow.array(["a"] * 200_000), "split": split})
    parquet.write_table(same, path, compression="zstd")
    with pytest.raises(ValueError, match=r"claims 200,000 rows"):
        load("manifest", root=path)
    words = {"path": ["a" * 2**27], "split": ["gallery"]}
    parquet.write_table(pyarrow.table(words), path, compression="zstd")
    with pytest.raises(ValueError, match=r"claims 1 rows of 134,"):
        load("manifest", root=path)


def test_one_long_word_of_many_rows_is_held_once(tmp_path):
    path = tmp_path / "cars.parquet"
    words = ["a" * 2**20] * 300
    table = pyarrow.table({"path": words, "split": ["gallery"] * 300})
    parquet.write_table(table, path, compression="zstd")
    tracemalloc.start()
    with pytest.raises(ValueError, match="path too long"):
        load("manifest", root=path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def test_words_come_back_however_they_are_stored(tmp_path):
    given = {
        "path": ["a", "b", "c", "d", "e"],
        "split": ["gallery"] * 4 + ["query"],
        "identity": [1.0, None, -1.0, 4.0, 4.0],
        "camera": pyarrow.array(["x", None, "y", "x", "z"]).dictionary_encode(),
        "tracklet": pyarrow.array([1, None, 2, 3, 3], pyarrow.int32()),
    }
    for number, options in enumerate(
        ({}, {"use_dictionary": False}, {"store_schema": False}, {"row_group_size": 2})
    ):
        path = tmp_path / f"{number}.parquet"
        parquet.write_table(pyarrow.table(given), path, **options)
        data = load("manifest", root=path, on_bad_image="later")
        assert data.gallery.names == ("a", "b", "c", "d")
        assert data.gallery.identities.tolist() == [0, -1, -1, 1]
        assert data.gallery.cameras.tolist() == [0, -1, 1, 0]
        assert data.query.cameras.tolist() == [2]
