import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from dex_jax.data import class_labels, load
from dex_jax.data._catalog import LOADERS
from dex_jax.data._market import load_dukemtmc, load_market1501
from dex_jax.data._msmt17 import load_msmt17
from dex_jax.data._vehicleid import load_vehicleid
from dex_jax.data._veri import load_veri776
from dex_jax.data._veriwild import load_veriwild
from dex_jax.data._vric import load_vric
from tests.data import fake_sets

TREES = {
    "veri776": fake_sets.veri,
    "vehicleid": fake_sets.vehicleid,
    "veriwild": fake_sets.veriwild,
    "vric": fake_sets.vric,
    "market1501": fake_sets.market,
    "dukemtmc": fake_sets.duke,
    "msmt17": fake_sets.msmt,
}


@pytest.mark.parametrize("name", list(TREES))
def test_every_set_reads_its_images_and_says_what_differs(tmp_path, name):
    root = TREES[name](tmp_path)
    data = LOADERS[name](tmp_path)  # a folder above will do
    assert LOADERS[name](root).source == data.source
    for split in (data.train, data.query, data.gallery):
        assert split.images[len(split) - 1].shape == (24, 32, 3)
    assert any("differs from the published set: train images" in n for n in data.notes)
    with pytest.warns(UserWarning, match=f"{name}: .*instead of"):
        load(name, root=root)  # no identity is both learned and asked


@pytest.mark.parametrize("name", list(TREES))
def test_every_set_finds_what_is_missing(tmp_path, name):
    root = TREES[name](tmp_path)
    data = LOADERS[name](root)
    (root / data.train.names[0]).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{name} in .*: 1 problem\n.*file is empty"):
        LOADERS[name](root)
    fewer = LOADERS[name](root, on_bad_image="skip")
    assert len(fewer.train) == len(data.train) - 1
    assert fewer.source != data.source
    with pytest.raises(FileNotFoundError, match="'procedural_vehicles' is drawn by"):
        LOADERS[name](tmp_path / "nowhere")


def test_veri_names_tracks_and_the_published_index(tmp_path):
    data = load_veri776(fake_sets.veri(tmp_path))
    assert data.train.names[0] == f"image_train/{fake_sets.VERI_TRAIN[-1]}"
    assert set(data.train.cameras) == {1, 20}
    # One (identity, camera) of train is one track; the gallery's file knows smaller.
    assert np.unique(data.train.tracklets).size == 4
    assert data.gallery.tracklets[:4].tolist() == [1, 2, 3, 3]
    assert set(data.query.tracklets) == {-1}
    assert "train_label.xml lacks 1 training image(s); the names decide" in data.notes
    assert not any("index" in note for note in data.notes)
    assert data.protocol.remove_same_camera
    track = load_veri776(tmp_path, protocol="track").protocol
    assert "ranked by tracklet" in track.describe()


def test_veri_says_when_the_index_is_another(tmp_path):
    root = fake_sets.veri(tmp_path)
    path = root / "jk_index.txt"
    path.write_text(path.read_text().replace("1 2", "1 3", 1))
    (root / "test_track.txt").unlink()
    data = load_veri776(root)
    assert any("jk_index.txt, line 1: differs from" in note for note in data.notes)
    assert np.unique(data.gallery.tracklets).size == 6


def test_veri_bad_lines(tmp_path):
    root = fake_sets.veri(tmp_path)
    with (root / "name_query.txt").open("a") as stream:
        stream.write("car.jpg\n")
    with (root / "test_track.txt").open("a") as stream:
        stream.write(f"label {fake_sets.VERI_TEST[0]} other.jpg\n")
    with pytest.raises(ValueError, match="3 problems") as caught:
        load_veri776(root)
    for expected in (
        "name_query.txt, line 4: not an image of VeRi-776: 'car.jpg'",
        "line 8: image in two tracks",
        "line 8: track of an image that is not listed: 'other.jpg'",
    ):
        assert expected in str(caught.value)


def test_vehicleid_draws_one_gallery_image_of_each_identity(tmp_path):
    root = fake_sets.vehicleid(tmp_path)
    data = load_vehicleid(root)
    assert sorted(data.gallery.identities) == [50, 51, 52]
    assert sorted(data.query.identities) == sorted([50, 51, 52] * 3)
    assert set(data.query.cameras) == {-1}
    assert data.train.identities.min() == 0
    assert class_labels(data.train)[1] == 3
    assert "mean of 10 random galleries" in data.protocol.describe()
    one = load_vehicleid(root, draw=0)
    assert one.gallery.names == data.gallery.names
    assert one.protocol.describe().startswith("VehicleID small, random gallery 0: ")
    assert one.protocol.draws == 1
    again = load_vehicleid(root)
    assert again.gallery.names == data.gallery.names
    galleries = {load_vehicleid(root, draw=draw).gallery.names for draw in range(8)}
    assert len(galleries) > 2
    with pytest.raises(FileNotFoundError, match=r"test_list_2400\.txt: missing list"):
        load_vehicleid(root, size="large")
    # The list with suffixes, which some copies call by a shorter name.
    assert load_vehicleid(root, size="medium").gallery.names == data.gallery.names


def test_veriwild_lists_old_and_new(tmp_path):
    root = fake_sets.veriwild(tmp_path)
    data = load_veriwild(root)
    assert data.query.names == ("images/00007/000070.jpg", "images/00009/000090.jpg")
    assert data.gallery.identities.tolist() == [7] * 4 + [9] * 4
    assert data.gallery.cameras.tolist() == [1, 1, 2, 2] * 2
    new = load_veriwild(root, size="medium")
    assert new.gallery.names == data.gallery.names
    assert new.gallery.cameras.tolist() == data.gallery.cameras.tolist()
    (root / "train_test_split" / "vehicle_info.txt").unlink()
    with pytest.raises(ValueError, match=r"camera unknown \(vehicle_info"):
        load_veriwild(root)
    with pytest.raises(FileNotFoundError, match=r"test_10000_query\.txt: missing list"):
        load_veriwild(root, size="large")


def test_vric_test_identities_are_others_than_those_of_train(tmp_path):
    data = load_vric(fake_sets.vric(tmp_path))
    assert data.train.identities.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.query.identities.tolist() == [3, 4, 5]
    assert data.gallery.identities.tolist() == [3, 4, 5]
    assert set(data.query.cameras) == {60}


def test_market_junk_and_distractors(tmp_path):
    root = fake_sets.market(tmp_path)
    data = load_market1501(root)
    assert data.gallery.identities.tolist() == [0, 1, 3]
    assert data.gallery.cameras.tolist() == [1, 2, 5]
    assert "1 junk images of the gallery dropped" in data.notes
    assert any("query: 1 other file(s) are not read" in note for note in data.notes)
    assert data.protocol.remove_same_camera
    kept = load_market1501(root, junk="keep")
    assert kept.gallery.identities.tolist() == [-1, 0, 1, 3]


ODD = {
    "12345_c17s1_000451_03.png": (12345, 17),
    "00007_c2s1_000301_01.JPG": (7, 2),
    "0008_c9_0001.bmp": (8, 9),
    "9_c1.webp": (9, 1),
    "0010_c6s3_000001_00.jpg.jpg": (10, 6),
}
STRANGE = ["car.jpg", "._0007_c2s1_000301_01.jpg", "0007_c2s1_000301_01.txt", "7_c.jpg"]


def add_odd_names(root):
    pixels = Image.new("RGB", (4, 3))
    for name in ODD:
        pixels.save(root / "bounding_box_test" / name)
    for name in STRANGE:
        (root / "bounding_box_test" / name).write_bytes(fake_sets.PIXELS)


@pytest.mark.parametrize("name", ["market1501", "dukemtmc"])
def test_folders_like_those_of_market(tmp_path, name):
    """Other formats, capital endings, more identities and cameras, as they are."""
    root = TREES[name](tmp_path)
    before = LOADERS[name](root)
    add_odd_names(root)
    data = LOADERS[name](root)
    assert len(data.gallery) == len(before.gallery) + len(ODD)
    rows = zip(data.gallery.identities, data.gallery.cameras, strict=True)
    read = dict(zip(data.gallery.names, rows, strict=True))
    for file, (identity, camera) in ODD.items():
        assert read[f"bounding_box_test/{file}"] == (identity, camera)
        row = data.gallery.names.index(f"bounding_box_test/{file}")
        assert data.gallery.images[row].shape == (3, 4, 3)


def test_what_does_not_match_is_counted_and_explained(tmp_path):
    root = fake_sets.market(tmp_path)
    add_odd_names(root)
    with pytest.warns(UserWarning, match="market1501") as caught:
        load("market1501", root=root)
    said = str(caught[0].message)
    assert "bounding_box_test: 5 other file(s) are not read, first '._0007_c2s" in said
    assert "expected names such as 0002_c1s1_000451_03.jpg" in said
    assert ".png" in said and ".bmp" in said


def test_a_name_that_is_not_utf8_is_named(tmp_path):
    root = fake_sets.market(tmp_path)
    name = os.fsdecode(b"0003_c1_caf\xe9.jpg")
    (root / "query" / name).write_bytes(fake_sets.PIXELS)
    with pytest.raises(
        ValueError, match=r"name is not UTF-8: 'query/0003_c1_caf.udce9"
    ):
        load_market1501(root)


def test_a_folder_of_other_names_says_what_it_expects(tmp_path):
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        fake_sets.images(tmp_path / folder, ["car.jpg"])
    with pytest.raises(
        ValueError, match=r"holds no image; .* first 'car.jpg': expected"
    ):
        load_market1501(tmp_path)


def test_other_endings_in_lists(tmp_path):
    """Lists that name the ending, or leave it out where it is .jpg."""
    root = fake_sets.vehicleid(tmp_path)
    path = root / "train_test_split" / "train_list.txt"
    (root / "image" / "0000100.jpg").rename(root / "image" / "0000100.PNG")
    path.write_text(path.read_text().replace("0000100 ", "0000100.PNG "))
    assert load_vehicleid(root).train.names[0] == "image/0000100.PNG"
    root = fake_sets.veriwild(tmp_path)
    path = root / "train_test_split" / "train_list.txt"
    first = path.read_text().split()[0]
    (root / "images" / f"{first}.jpg").rename(root / "images" / f"{first}.png")
    path.write_text(path.read_text().replace(first, f"{first}.png"))
    data = load_veriwild(root)
    assert data.train.names[0] == f"images/{first}.png"
    assert data.train.cameras[0] != -1
    root = fake_sets.veri(tmp_path)
    path = root / "name_query.txt"
    fake_sets.images(root / "image_query", ["12345_c1234_1.bmp"])
    path.write_text(path.read_text() + "12345_c1234_1.bmp\n")
    data = load_veri776(root)
    assert (data.query.identities[-1], data.query.cameras[-1]) == (12345, 1234)


@pytest.mark.parametrize("name", ["vric", "msmt17"])
def test_renumbered_identities_keep_their_words(tmp_path, name):
    data = LOADERS[name](TREES[name](tmp_path))
    words = data.words["identities"]
    asked = [words[i] for i in data.query.identities]
    assert asked == {"vric": ["0", "1", "2"], "msmt17": ["0"]}[name]
    assert [words[i] for i in data.train.identities[:2]] == [
        "0",
        {"vric": "0", "msmt17": "1"}[name],
    ]


LABELS_ALONE = {
    "veri776": ["image_train", "image_test", "image_query"],
    "vehicleid": ["image"],
    "veriwild": ["images"],
    "vric": ["train_images", "probe_images", "gallery_images"],
    "msmt17": ["train", "test"],
}


@pytest.mark.parametrize("name", list(LABELS_ALONE))
def test_labels_are_read_without_the_pictures(tmp_path, name):
    root = TREES[name](tmp_path)
    whole = LOADERS[name](root)
    for folder in LABELS_ALONE[name]:
        shutil.rmtree(root / folder)
    with pytest.raises((ValueError, FileNotFoundError)):
        LOADERS[name](root)
    data = LOADERS[name](root, on_bad_image="later")
    assert data.gallery.names == whole.gallery.names
    np.testing.assert_array_equal(data.query.identities, whole.query.identities)
    with pytest.raises(FileNotFoundError, match="no such image file"):
        data.query.images[0]


def test_duke(tmp_path):
    data = load_dukemtmc(fake_sets.duke(tmp_path))
    assert data.gallery.identities.tolist() == [5, 7100]
    assert data.gallery.cameras.tolist() == [8, 3]


def test_numbers_that_pandas_made_floating_point_ones(tmp_path):
    root = fake_sets.vric(tmp_path)
    whole = load_vric(root).train
    path = root / "vric_train.txt"
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text("".join(f"{name} {i}.0 {c}.0\n" for name, i, c in lines))
    floating = load_vric(root).train
    np.testing.assert_array_equal(floating.identities, whole.identities)
    np.testing.assert_array_equal(floating.cameras, whole.cameras)
    path.write_text(f"{lines[0][0]} nan 1\n")
    with pytest.raises(ValueError, match="line 1: identity is not a number: 'nan'"):
        load_vric(root)


@pytest.mark.parametrize("release", [1, 2])
def test_msmt_test_identities_restart(tmp_path, release):
    data = load_msmt17(fake_sets.msmt(tmp_path, release=release))
    assert data.train.identities.tolist() == [0, 1]
    assert data.train.cameras.tolist() == [1, 15]
    assert data.query.identities.tolist() == [2]
    assert data.gallery.identities.tolist() == [2, 3]
    assert data.gallery.cameras.tolist() == [14, 5]


@pytest.mark.parametrize(
    ("tree", "loader", "file", "line", "message"),
    [
        (
            fake_sets.vehicleid,
            load_vehicleid,
            "train_test_split/train_list.txt",
            "0000100 x",
            "line 10: identity is not a number: 'x'",
        ),
        (
            fake_sets.vehicleid,
            load_vehicleid,
            "train_test_split/test_list_800.txt",
            "0000900 99999999999999999999",
            "line 13: identity is not a number: '99999999999999999999'",
        ),
        (
            fake_sets.vehicleid,
            load_vehicleid,
            "train_test_split/train_list.txt",
            "0000100 1",
            "line 10: image listed twice: 'image/0000100.jpg' (expected once, as in "
            "line 1)",
        ),
        (
            fake_sets.veriwild,
            load_veriwild,
            "train_test_split/train_list.txt",
            "abc",
            "line 7: not an image of VERI-Wild: 'abc'",
        ),
        (
            fake_sets.veriwild,
            load_veriwild,
            "train_test_split/vehicle_info.txt",
            "1/2;x;y",
            "line 16: camera is not a number: '1/2;x;y'",
        ),
        (
            fake_sets.vric,
            load_vric,
            "vric_train.txt",
            "a0.jpg 1",
            "line 7: wrong field count: 'a0.jpg 1' (expected image, identity and",
        ),
        (
            fake_sets.msmt,
            load_msmt17,
            "list_train.txt",
            "a.jpg 1",
            "line 2: not an image of MSMT17: 'a.jpg 1'",
        ),
    ],
)
def test_bad_lines(tmp_path, tree, loader, file, line, message):
    root = tree(tmp_path)
    with (root / file).open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        loader(root)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vehicleid", {"size": "800"}, "size: expected one of 'small'"),
        ("vehicleid", {"draw": -1}, "draw: expected at least 0"),
        ("veriwild", {"size": 3000}, "size: expected one of 'small'"),
        ("vric", {"verify": "maybe"}, "verify: expected True or False, got 'maybe'"),
        ("veri776", {"protocol": "B"}, "protocol: expected one of 'image'"),
        ("market1501", {"junk": "no"}, "junk: expected one of 'drop'"),
        ("vric", {"size": "small"}, "size: vric has no such option; it has on_bad"),
    ],
)
def test_bad_options(tmp_path, name, options, message):
    fake_sets.vric(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(name, root=tmp_path, **options)
