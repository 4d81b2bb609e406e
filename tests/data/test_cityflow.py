import re
import shutil

import numpy as np
import pytest

from dex_jax.data import class_labels, hold_out, load, mix
from dex_jax.data._cityflow import load_cityflow
from dex_jax.data._vehiclex import load_vehiclex
from tests.data import fake_sets


@pytest.fixture
def root(tmp_path):
    return fake_sets.cityflow(tmp_path)


def test_labels_tracks_and_names(root):
    data = load_cityflow(root)
    train = data.train
    assert train.names[0] == "image_train/000001.jpg"
    assert list(train.names) == sorted(train.names)
    assert train.identities.tolist() == [i for _, i, _ in fake_sets.TRAIN]
    assert train.cameras.tolist() == [c for _, _, c in fake_sets.TRAIN]
    assert train.tracklets.tolist() == [t // 4 for t in range(len(train))]
    assert class_labels(train)[1] == 6  # ids up to 478 are six classes
    assert data.query.names[0] == "image_query/000001.jpg"
    assert set(data.query.identities) == {-1}
    assert data.gallery.tracklets.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2]
    assert train.images[0].shape == (24, 32, 3)
    assert data.protocol.describe() == (
        "CityFlow-ReID: same-camera images kept, mAP@100 over all positives"
    )


def test_the_root_may_be_a_folder_above(root):
    source = load_cityflow(root).source
    assert load_cityflow(root.parent).source == source
    for name in ("aic19-track2-reid", "AIC20_track2/AIC20_ReID", "AIC21_Track2_ReID"):
        (root.parent / name).parent.mkdir(exist_ok=True)
        root = root.rename(root.parent / name)
        above = root.parents[name.count("/")]
        assert load_cityflow(above).source == source
        root = root.rename(above / "AIC20_ReID")


def test_what_is_defective_is_said(root):
    notes = load_cityflow(root).notes
    # Each of the 18 tracks lacks one image in train_track.txt.
    assert notes[0] == (
        "train_track.txt lacks 18 images; tracks are taken from train_track_id.txt"
    )
    assert "train images 69 instead of 36,935" in notes[1]
    assert "query images 4 instead of 1,052" in notes[1]
    with pytest.warns(UserWarning, match=r"cityflow: train_track.txt lacks 18"):
        load("cityflow", root=root)


def test_the_defective_track_file_alone(root):
    (root / "train_track_id.txt").unlink()
    data = load_cityflow(root)
    # The last image of a line's reversed track is its first: it stands alone. Line
    # numbers do not shift at the empty line.
    assert data.train.tracklets[:5].tolist() == [-1, 0, 0, 0, -1]
    assert data.train.tracklets[-1] == -1
    assert any("leaves out stand alone" in note for note in data.notes)


@pytest.mark.parametrize(
    "header",
    ['<?xml version="1.0" encoding="utf-8"?>', "<?xml version='1.0'?>", ""],
)
def test_an_edited_header_reads_the_same(root, header):
    source = load_cityflow(root).source
    path = root / "train_label.xml"
    lines = path.read_text().splitlines()
    path.write_text("\r\n".join([header, *lines[1:]]).lstrip())
    assert load_cityflow(root).source == source


def test_the_edition_of_2021(tmp_path):
    data = load_cityflow(fake_sets.cityflow(tmp_path, edition=2021))
    assert set(data.gallery.cameras) == {10}
    assert set(data.query.identities) == {-1}
    assert data.gallery.tracklets.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2]
    assert any("train images 69 instead of 52,717" in note for note in data.notes)


def test_an_annotation_of_the_test_images(root, tmp_path):
    query = np.array([[6, 96], [6, 96], [7, 97], [8, 98]])
    # One row for each image; a track is one identity at one camera.
    gallery = np.array([[9, 96]] * 3 + [[6, 97]] + [[8, 98]] * 5)
    np.save(tmp_path / "query.npy", query)
    np.savetxt(tmp_path / "gallery.txt", gallery, fmt="%d")
    data = load_cityflow(
        root,
        query_labels=tmp_path / "query.npy",
        gallery_labels=tmp_path / "gallery.txt",
    )
    assert data.query.identities.tolist() == [96, 96, 97, 98]
    assert data.gallery.cameras.tolist() == [9, 9, 9, 6, 8, 8, 8, 8, 8]
    with pytest.raises(ValueError, match=r"query.npy: expected integers \(9, 2\)"):
        load_cityflow(root, gallery_labels=tmp_path / "query.npy")
    with pytest.raises(FileNotFoundError, match="no such annotation"):
        load_cityflow(root, gallery_labels=tmp_path / "none.npy")


def test_the_labels_without_the_pictures(root, tmp_path):
    whole = load_cityflow(root)
    for folder in ("image_train", "image_test", "image_query"):
        shutil.rmtree(root / folder)
    np.save(tmp_path / "query.npy", np.array([[6, 96], [6, 96], [7, 97], [8, 98]]))
    with pytest.raises(FileNotFoundError, match="expected a folder that holds"):
        load_cityflow(root)
    with pytest.warns(UserWarning, match="cityflow"):
        data = load(
            "cityflow",
            root=root.parent,
            on_bad_image="later",
            query_labels=tmp_path / "query.npy",
        )
    assert data.query.identities.tolist() == [96, 96, 97, 98]
    assert data.gallery.names == whole.gallery.names
    assert data.train.tracklets.tolist() == whole.train.tracklets.tolist()
    with pytest.raises(FileNotFoundError, match="no such image file"):
        data.gallery.images[0]


@pytest.mark.parametrize("form", ["npy", "txt", "csv"])
def test_an_annotation_that_pandas_wrote(root, tmp_path, form):
    rows = np.array([[6, 96], [6, 96], [np.nan, np.nan], [8, 98]])
    path = tmp_path / f"query.{form}"
    if form == "npy":
        np.save(path, rows)
    else:
        np.savetxt(path, rows, fmt="%.1f", delimiter="," if form == "csv" else " ")
    data = load_cityflow(root, query_labels=path)
    assert data.query.identities.tolist() == [96, 96, -1, 98]
    assert data.query.cameras.tolist() == [6, 6, -1, 8]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[6, 96], [6, 96.5], [7, 97], [8, 98]], r"got \[6.0, 96.5\] in row 1"),
        ([[6, 96], [6, 96], [7, -2], [8, 98]], r"got \[7, -2\] in row 2"),
        ([[6, 96], [6, 96], [7, 97], [8, np.inf]], r"got \[8.0, inf\] in row 3"),
        ([[True, False]] * 4, r"got bool \(4, 2\)"),
        ([["a", "b"]] * 4, r"got <U1 \(4, 2\)"),
    ],
)
def test_an_annotation_of_other_values(root, tmp_path, rows, message):
    np.save(tmp_path / "query.npy", np.array(rows))
    with pytest.raises(ValueError, match=rf"query.npy: expected integers .*{message}"):
        load_cityflow(root, query_labels=tmp_path / "query.npy")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04",
        b"1 2\n3\n4 5\n6 7\n",
        b"a b\n" * 4,
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("form", ["npy", "txt"])
def test_an_annotation_that_is_no_table(root, tmp_path, content, form):
    path = tmp_path / f"query.{form}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"query\.{form}"):
        load_cityflow(root, query_labels=path)


def test_an_annotation_runs_no_code(root, tmp_path):
    path = tmp_path / "query.npy"
    np.save(path, np.array([[print, 1]] * 4, object), allow_pickle=True)
    with pytest.raises(
        ValueError, match=r"query\.npy: cannot be read as a plain array"
    ):
        load_cityflow(root, query_labels=path)


def test_everything_wrong_comes_in_one_error(root):
    (root / "image_train" / "000002.jpg").unlink()
    (root / "image_test" / "000003.jpg").write_bytes(b"")
    labels = root / "train_label.xml"
    content = labels.read_text()
    content = content.replace(
        '"000005.jpg" vehicleID="0003"', '"000005.jpg" vehicleID="x"'
    )
    content = re.sub(r".*000009.jpg.*\n", "", content)
    labels.write_text(content)
    with (root / "test_track_id.txt").open("a") as stream:
        stream.write("1 77 \n")
    with pytest.raises(ValueError, match=r"cityflow in .*: ") as caught:
        load_cityflow(root)
    message = str(caught.value)
    line = content[: content.index("000005.jpg")].count("\n") + 1
    for expected in (
        f"train_label.xml, line {line}: vehicleID is not a number: 'x'",
        "name_train.txt, line 9: image without a label: '000009.jpg'",
        "file not found: 'image_train/000002.jpg'",
        "name_test.txt, line 3: file is empty: 'image_test/000003.jpg'",
        "test_track_id.txt, line 4: image in two tracks: '1'",
        "1 images of the test tracks are in no list: '000077.jpg'",
        "1 images of the train tracks are in no list: '000009.jpg'",
        "track 1 mixes vehicles",
    ):
        assert expected in message, expected


def test_bad_images_can_be_left_out(root):
    (root / "image_train" / "000002.jpg").unlink()
    (root / "image_train" / "000006.jpg").write_bytes(fake_sets.PIXELS[:300])
    (root / "image_train" / "000099.jpg").write_bytes(fake_sets.PIXELS)
    with pytest.raises(ValueError, match="2 problems"):
        load_cityflow(root)  # a damaged file is found when it is read, or
    with pytest.raises(ValueError, match="3 problems") as caught:
        load_cityflow(root, verify=True)
    assert "image cannot be decoded: 'image_train/000006.jpg'" in str(caught.value)
    data = load_cityflow(root, on_bad_image="skip")
    assert len(data.train) == len(fake_sets.TRAIN) - 2
    assert any(note.startswith("3 image(s) are left out") for note in data.notes)
    with pytest.raises(ValueError, match="on_bad_image: expected one of 'error'"):
        load_cityflow(root, on_bad_image="ignore")


def test_entities_are_not_expanded(root):
    declaration = '<!DOCTYPE x [<!ENTITY a "0003">]>'
    path = root / "train_label.xml"
    header, rest = path.read_text().split("\n", 1)
    path.write_text(f"{header}\n{declaration}\n{rest.replace('0003', '&a;')}")
    with pytest.raises(ValueError, match=r"train_label.xml.*document type declaration"):
        load_cityflow(root)


def test_a_broken_label_file(root):
    path = root / "train_label.xml"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(
        ValueError, match=r"train_label.xml, line \d+: not a label file"
    ):
        load_cityflow(root)


def test_a_list_cannot_name_files_elsewhere(root):
    (root.parent / "secret.jpg").write_bytes(fake_sets.PIXELS)
    with (root / "name_query.txt").open("a") as stream:
        stream.write("../../secret.jpg\n")
    with pytest.raises(ValueError, match=r"name_query.txt, line 5: image outside of"):
        load_cityflow(root)


def test_a_wrong_folder_says_how_to_obtain_the_set(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train_label.xml, image_train") as one:
        load("cityflow", root=tmp_path)
    assert "signed licence" in str(one.value)
    assert "procedural_vehicles" in str(one.value)


def test_a_missing_list_names_the_edition(root):
    (root / "name_query.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"name_query.txt: missing; the editions"
    ):
        load_cityflow(root)


@pytest.mark.parametrize("folder", ["image_train", "sys_image_train"])
def test_the_simulation_set_is_another_domain(tmp_path, folder):
    data = load_vehiclex(fake_sets.simulation(tmp_path, folder=folder))
    assert data.train.identities.tolist() == [3] * 4 + [41] * 4
    assert data.train.cameras.tolist() == [6, 6, 7, 7] * 2
    assert set(data.train.domains) == {"sim"}
    assert len(data.query) == 0


def test_a_flat_folder_of_synthetic_images(tmp_path):
    fake_sets.images(tmp_path, [*fake_sets.SIM, "contact.jpg"])
    data = load_vehiclex(tmp_path)
    assert data.train.identities.tolist() == [3] * 4 + [41] * 4
    assert "1 file(s) of another name are left out" in data.notes
    assert any("'contact.jpg', expected was a name" in note for note in data.notes)
    with pytest.raises(FileNotFoundError, match="no_such or images named like"):
        load_vehiclex(tmp_path, images="no_such")


def test_real_and_synthetic_vehicles_of_one_number_are_two_classes(root, tmp_path):
    sim = fake_sets.simulation(tmp_path / "sim")
    with pytest.warns(UserWarning, match="; synthetic: differs from the"):
        data = load("cityflow", root=root, synthetic_root=sim)
    assert class_labels(data.train)[1] == 8
    (sim / "sys_image_train" / fake_sets.SIM[0]).write_bytes(b"")
    with pytest.raises(ValueError, match=r"(?s)vehiclex in .*file is empty"):
        load("cityflow", root=root, synthetic_root=sim)
    with pytest.warns(UserWarning, match=r"synthetic: 1 image\(s\) are left out"):
        load("cityflow", root=root, synthetic_root=sim, on_bad_image="skip")
    balanced = mix(data, synthetic="balanced", synthetic_identities=1)
    assert class_labels(balanced.train)[1] == 7
    held = hold_out(balanced, identities=2)
    assert class_labels(held.train)[1] == 5
    # Three cameras, one query each; an identity keeps its other images.
    assert len(held.query) == 6
