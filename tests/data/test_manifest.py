import re

import numpy as np
import pytest
from PIL import Image

from dex_jax.data import class_labels, load, write_manifest
from tests.data import fake_sets

HEADER = "path,split,identity,camera,tracklet,domain"
ROWS = [
    "b.png,train,v17,c2,t5,real",
    "a.png,train,v17,c2,,sim",
    "c.png,train,v02,c1,,",
    "a.png,query,v90,c1,t5,real",
    "b.png,gallery,v90,c2,t9,real",
    "c.png,gallery,v90,c2,t9,real",
    '"d,1.png",gallery,-1,,,',
    "e.png,gallery,,c1,,",
]


@pytest.fixture
def make(tmp_path):
    """Writes a manifest beside five tiny images and returns its path."""
    for i, name in enumerate(["a", "b", "c", "d,1", "e"]):
        Image.new("RGB", (6, 4), (10 * i, 0, 0)).save(tmp_path / f"{name}.png")

    def write(rows, header=HEADER, end="\n", encoding="utf-8"):
        text = end.join([header, *rows]) + end
        path = tmp_path / "cars.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_rows_keep_their_order_and_labels_their_domain(make):
    data = load("manifest", root=make(ROWS))
    assert data.train.names == ("b.png", "a.png", "c.png")
    # Classes by sorted (domain, identity): (real, v02), (real, v17), (sim, v17).
    labels, C = class_labels(data.train)
    assert labels.tolist() == [1, 2, 0]
    assert C == 3
    assert data.identity_names == ("v02", "v17", "v90", "sim:v17")
    assert data.train.domains.tolist() == ["real", "sim", "real"]
    # Cameras are those of a domain: (real, c1), (real, c2), (sim, c2).
    assert data.train.cameras.tolist() == [1, 2, 0]
    assert data.gallery.names == ("b.png", "c.png", "d,1.png", "e.png")
    assert data.gallery.identities.tolist() == [2, 2, -1, -1]
    assert data.gallery.cameras.tolist() == [1, 1, -1, 0]
    assert data.gallery.tracklets.tolist() == [0, 0, -1, -1]
    # The track t5 of train is another one than the t5 of the queries.
    assert data.query.tracklets.tolist() == [0]
    assert data.gallery.images[2].shape == (4, 6, 3)
    assert data.gallery.images[2][0, 0].tolist() == [30, 0, 0]


@pytest.mark.parametrize(
    "form", [{"end": "\r\n"}, {"encoding": "utf-8-sig"}, {"end": "\n\n"}]
)
def test_line_ends_blank_lines_and_byte_order_marks(make, form):
    plain = load("manifest", root=make(ROWS))
    other = load("manifest", root=make(ROWS, **form))
    assert other.train.names == plain.train.names
    assert other.gallery.identities.tolist() == plain.gallery.identities.tolist()


def test_only_two_columns_are_needed(make):
    path = make(["a.png,query,1", "b.png,gallery,x"], header="path,split,x_note")
    data = load("manifest", root=path, top=100)
    assert data.query.identities.tolist() == [-1]
    assert len(data.train) == 0
    assert data.protocol.describe() == (
        "cars: same-camera images kept, mAP@100 over all positives"
    )


def test_more_rows_elsewhere_leave_the_classes_alone(make):
    few = class_labels(load("manifest", root=make(ROWS[:3])).train)[0]
    many = class_labels(load("manifest", root=make(ROWS)).train)[0]
    np.testing.assert_array_equal(few, many)


def test_the_source_follows_the_content(make, tmp_path):
    first = load("manifest", root=make(ROWS)).source
    assert load("manifest", root=make(ROWS)).source == first
    assert load("manifest", root=make(ROWS[:-1])).source != first
    Image.new("RGB", (60, 40), (1, 2, 3)).save(tmp_path / "a.png")
    assert load("manifest", root=make(ROWS)).source != first


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("path,split,path", ["a,b,c"], "line 1, column 'path': duplicate column"),
        ("path,identity", ["a,b"], "line 1, column 'split': missing required column"),
        ("path,split,idenity", ["a,b,c"], "line 1, column 'idenity': unknown column"),
        (HEADER, [], "line 1: no data rows"),
        (HEADER, ["a.png,train,1"], "line 2: wrong field count: '3' (expected 6)"),
        (HEADER, [",train,1,,,"], "line 2, column 'path': empty path: ''"),
        (HEADER, ["/a.png,train,1,,,"], "column 'path': absolute path: '/a.png'"),
        (HEADER, ["C:\\a.png,train,1,,,"], "column 'path': absolute path"),
        (HEADER, ["x/../a.png,train,1,,,"], "path leaves the image root"),
        (HEADER, ["a.png,Train,1,,,"], "column 'split': unknown split: 'Train'"),
        (HEADER, ["a.png,train,1,,,Real"], "column 'domain': bad domain: 'Real'"),
        (HEADER, [f"a.png,train,1,,,{'a' * 65}"], "at most 64 letters"),
        (HEADER, [f"{'a' * 4097},train,1,,,"], f"long: '{'a' * 500}...' ("),
        (HEADER, [ROWS[0], ROWS[0]], "line 3, column 'path': duplicate of line 2"),
        (HEADER, ["a.png,train,,,,"], "train row without identity: ''"),
        (HEADER, ["a.png,train,-1,,,"], "train row without identity: '-1'"),
        (HEADER, ["a.png,query,-1,,,"], "column 'identity': junk query: '-1'"),
        (
            HEADER,
            ["a.png,train,1,,t,", "b.png,train,2,,t,"],
            "line 3, column 'identity': tracklet 't' mixes labels: '2' "
            "(expected '1' as in line 2)",
        ),
        (
            HEADER,
            ["a.png,train,1,c1,t,", "b.png,train,1,c2,t,"],
            "line 3, column 'camera': tracklet 't' mixes labels: 'c2'",
        ),
        (HEADER, ["gone.png,train,1,,,"], "column 'path': file not found: 'gone.png'"),
        (HEADER, ['a.png,train,"1,,,'], "line 2: not a CSV line"),
    ],
)
def test_errors_name_line_column_and_value(make, header, rows, message):
    path = make(rows, header=header)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load("manifest", root=path)
    assert str(path) in str(caught.value)


def test_an_empty_file_has_no_header(make):
    path = make([])
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="line 1: no header"):
        load("manifest", root=path)


def test_a_quoted_line_break_does_not_shift_line_numbers(make):
    header = "path,split,identity,x_note"
    rows = ['a.png,train,1,"two\nlines"', "b.png,nowhere,1,"]
    with pytest.raises(ValueError, match="line 4, column 'split': unknown split"):
        load("manifest", root=make(rows, header=header))


def test_bytes_that_are_not_utf8(make):
    path = make(ROWS[:2])
    path.write_bytes(path.read_bytes() + b"caf\xe9.png,train,1,,,\n")
    with pytest.raises(ValueError, match="line 4: not UTF-8: 'byte 0xe9'"):
        load("manifest", root=path)


def test_all_problems_come_at_once_the_first_twenty_in_full(make):
    rows = [f"{i}.png,train,{i},,," for i in range(30)] + ["31.png,there,1,,,"]
    with pytest.raises(ValueError, match="32 problems") as caught:
        load("manifest", root=make(rows))
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert "unknown split: 'there'" in lines[1]
    assert lines[-1] == (
        "  ... and 12 more; in all: 1 x unknown split, 31 x file not found"
    )


def test_an_empty_image_file(make, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"file is empty: 'a\.png'"):
        load("manifest", root=make(ROWS))


def test_bad_images_can_be_left_out(make, tmp_path):
    path = make(ROWS)
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "e.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="2 problems"):
        load("manifest", root=path)  # one empty file in two rows
    with pytest.raises(ValueError, match="3 problems"):
        load("manifest", root=path, verify=True)
    with pytest.warns(UserWarning, match=r"manifest: 3 image\(s\) are left out"):
        data = load("manifest", root=path, on_bad_image="skip")
    assert data.train.names == ("b.png", "c.png")
    assert len(data.query) == 0


def test_training_identities_must_not_be_asked(make):
    rows = [*ROWS, "c.png,query,v17,c2,,"]
    path = make(rows)
    with (
        pytest.raises(
            ValueError, match=r"manifest .*\.csv: 1 identities are both in train and"
        ),
        pytest.warns(UserWarning, match="gallery lacks"),
    ):
        load("manifest", root=path)
    with pytest.warns(UserWarning, match="1 queries show 1 identities that"):
        assert len(load("manifest", root=path, allow_overlap=True).query) == 2


def test_a_camera_rule_needs_cameras(make):
    with pytest.raises(ValueError, match="line 8, column 'camera': camera unknown"):
        load("manifest", root=make(ROWS), remove_same_camera=True)
    data = load("manifest", root=make(ROWS[:6]), remove_same_camera=True)
    assert data.protocol.remove_same_camera


def test_another_image_root(make, tmp_path):
    path = make(ROWS)
    moved = path.rename(tmp_path.parent / f"{tmp_path.name}.csv")
    assert len(load("manifest", root=moved, image_root=tmp_path).train) == 3
    with pytest.raises(ValueError, match="file not found"):
        load("manifest", root=moved)


def test_parquet_reads_like_csv(make, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    plain = load("manifest", root=make(ROWS))
    fields = [row.replace('"d,1.png"', "d;1.png").split(",") for row in ROWS]
    columns = [
        [value.replace(";", ",") or None for value in column]
        for column in zip(*fields, strict=True)
    ]
    path = tmp_path / "cars.parquet"
    table = pyarrow.table(dict(zip(HEADER.split(","), columns, strict=True)))
    parquet.write_table(table, path)
    data = load("manifest", root=path)
    assert data.gallery.names == plain.gallery.names
    assert data.gallery.identities.tolist() == plain.gallery.identities.tolist()


PANDAS = [
    "a.png,train,17.0,2.0,1.0,",
    "b.png,train,18.0,,,",
    "c.png,query,90.0,1.0,nan,",
    '"d,1.png",gallery,-1.0,nan,,',
    "e.png,gallery,NaN,3.0,,",
    "a.png,gallery,90.0,2.0,<NA>,",
]


def test_labels_that_pandas_made_floating_point_numbers(make):
    data = load("manifest", root=make(PANDAS))
    assert data.words == {"identities": ["17", "18", "90"], "cameras": ["1", "2", "3"]}
    assert data.train.identities.tolist() == [0, 1]
    assert data.train.cameras.tolist() == [1, -1]
    assert data.train.tracklets.tolist() == [0, -1]
    assert data.query.identities.tolist() == [2]
    assert data.query.tracklets.tolist() == [-1]
    # Junk, unlabelled, found.
    assert data.gallery.identities.tolist() == [-1, -1, 2]
    assert data.gallery.cameras.tolist() == [-1, 2, 1]


def test_the_same_labels_as_whole_numbers_are_the_same(make):
    whole = [row.replace(".0,", ",").replace("nan", "") for row in PANDAS]
    whole = [row.replace("NaN", "").replace("<NA>", "") for row in whole]
    floating = load("manifest", root=make(PANDAS))
    plain = load("manifest", root=make(whole))
    assert plain.words == floating.words
    for side in ("train", "query", "gallery"):
        a, b = getattr(plain, side), getattr(floating, side)
        for kind in ("identities", "cameras", "tracklets"):
            np.testing.assert_array_equal(getattr(a, kind), getattr(b, kind))


@pytest.mark.parametrize("identity", ["nan", "NaN", "", " ", "-1.0", "<NA>"])
def test_a_training_image_needs_an_identity(make, identity):
    path = make(["b.png,train,1.0,,,", f"a.png,train,{identity},,,"])
    message = f"{path}, line 3, column 'identity': train row without identity: "
    with pytest.raises(ValueError, match=re.escape(f"{message}{identity!r}")):
        load("manifest", root=path)


def test_a_junk_query_of_pandas(make):
    with pytest.raises(ValueError, match=r"column .identity.: junk query: .-1\.0"):
        load("manifest", root=make(["a.png,query,-1.0,,,"]))


def test_labels_that_may_be_meant_as_one_are_named(make):
    rows = [
        "a.png,train,1,7,,",
        "b.png,train,0001,07,,",
        "c.png,train,1 ,7,,",
        "e.png,train,2,8,,",
    ]
    with pytest.warns(UserWarning, match=r"identity: '0001', '1' and '1 ' are read"):
        data = load("manifest", root=make(rows))
    assert any(note.startswith("camera: '07' and '7' are") for note in data.notes)
    assert data.words["identities"] == ["0001", "1", "1 ", "2"]
    # Each domain has numbers of its own.
    rows = ["a.png,train,1,7,,real", "b.png,train,0001,07,,sim"]
    assert load("manifest", root=make(rows)).notes == ()


def test_the_labels_without_the_pictures(make, tmp_path):
    path = make(ROWS)
    whole = load("manifest", root=path)
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    with pytest.raises(ValueError, match="file not found"):
        load("manifest", root=path)
    data = load("manifest", root=path, on_bad_image="later")
    assert data.gallery.names == whole.gallery.names
    assert data.gallery.identities.tolist() == whole.gallery.identities.tolist()
    assert data.source != whole.source
    with pytest.raises(FileNotFoundError, match=r"b\.png: no such image file"):
        data.gallery.images[0]
    with pytest.raises(ValueError, match="verify: reads every image"):
        load("manifest", root=path, on_bad_image="later", verify=True)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such manifest; give the table"):
        load("manifest", root=tmp_path)


def test_the_catalogue_says_what_it_has(tmp_path):
    with pytest.raises(
        ValueError, match=r"name: .*'procedural_vehicles', .*got 'verri'"
    ):
        load("verri", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="root: manifest lies on your disk"):
        load("manifest")
    with pytest.raises(ValueError, match="size: manifest has no such option; it has"):
        load("manifest", root=tmp_path, size="demo")


CARS = r"(?P<identity>[a-z]+_\d+)_cam(?P<camera>{})\.jpg"


def test_a_folder_of_real_photographs(real_data, tmp_path):
    out = tmp_path / "cars.csv"
    folder = real_data / "two_camera_vehicles"
    rows = write_manifest(
        folder,
        out,
        patterns={
            "train": "train/" + CARS.format(r"\d"),
            "query": "test/" + CARS.format(1),
            "gallery": "test/" + CARS.format(2),
        },
    )
    assert rows == (1134, 0)
    data = load("manifest", root=out, image_root=folder)
    assert (len(data.train), len(data.query), len(data.gallery)) == (1014, 60, 60)
    assert class_labels(data.train)[1] == 507
    assert set(data.query.identities) == set(data.gallery.identities)
    assert max(data.query.images[0].shape) == 96


def test_writing_a_manifest_reports_what_it_leaves(make, tmp_path):
    make([]).unlink()
    out = tmp_path / "out.csv"
    pattern = r"(?P<identity>[ab])\.png"
    assert write_manifest(tmp_path, out, patterns={"train": pattern}) == (2, 3)
    assert load("manifest", root=out).identity_names == ("a", "b")


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"test": ".*"}, "patterns: 'test' is no split"),
        ({"train": "("}, r"patterns: '\(' \(train\) is no regular expression"),
        ({"train": "(?P<id>.*)"}, "names id; groups must be among identity"),
        ({"train": ".*", "query": "a.*"}, "matches train and query: 'a.png'"),
        ({"train": "no"}, "none of its 5 images matches a pattern"),
    ],
)
def test_bad_patterns(make, tmp_path, patterns, message):
    make([])
    with pytest.raises(ValueError, match=message):
        write_manifest(tmp_path, tmp_path / "out.csv", patterns=patterns)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_manifest(tmp_path / "no", tmp_path / "o.csv", patterns={"train": ".*"})


def test_queries_without_a_gallery_name_their_file(tmp_path):
    (tmp_path / "q.csv").write_text("path,split,identity\na.jpg,query,1\n")
    fake_sets.images(tmp_path, ["a.jpg"])
    with pytest.raises(ValueError, match=r"q\.csv: lists 1 queries and no gallery im"):
        load("manifest", root=tmp_path / "q.csv")


def test_a_folder_of_queries_alone_is_named(tmp_path):
    root = fake_sets.market(tmp_path)
    for path in (root / "bounding_box_test").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=rf"{root}.*no gallery image|bounding_box_te"):
        load("market1501", root=root)
