import shutil
import sys

import numpy as np
import pytest

from dex_jax.data import load
from dex_jax.pipeline import eval_batches
from tests.data import fake_sets

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")
pytestmark = pytest.mark.filterwarnings("ignore:.*instead of")


def _same(a, b):
    for side in ("train", "query", "gallery"):
        x, y = getattr(a, side), getattr(b, side)
        assert x.names == y.names
        for kind in ("identities", "cameras", "tracklets", "domains"):
            np.testing.assert_array_equal(getattr(x, kind), getattr(y, kind))
        for i in range(len(x)):
            np.testing.assert_array_equal(x.images[i], y.images[i])
    assert (a.source, a.protocol, a.notes) == (b.source, b.protocol, b.notes)


def test_a_store_is_built_once_and_outlives_its_root(tmp_path):
    root = fake_sets.cityflow(tmp_path / "raw")
    plain = load("cityflow", root=root)
    built = load("cityflow", root=root, data_dir=tmp_path / "stores")
    _same(built, plain)
    shutil.rmtree(root)
    again = load("cityflow", data_dir=tmp_path / "stores")
    _same(again, built)
    batches = list(eval_batches(again.gallery, image_size=16, batch_size=5))
    assert [b.size for b in batches] == [5, 4]
    assert "tensorflow" not in sys.modules


def test_every_option_has_its_own_store(tmp_path):
    root = fake_sets.market(tmp_path / "raw")
    stores = tmp_path / "stores"
    dropped = load("market1501", root=root, data_dir=stores)
    kept = load("market1501", root=root, data_dir=stores, junk="keep")
    assert len(kept.gallery) == len(dropped.gallery) + 1
    _same(load("market1501", data_dir=stores, junk="keep"), kept)


def test_a_manifest_and_synthetic_images(tmp_path):
    fake_sets.images(tmp_path, ["a.jpg", "b.jpg"])
    path = tmp_path / "cars.csv"
    path.write_text("path,split,identity\na.jpg,train,x\nb.jpg,train,y\n")
    sim = fake_sets.simulation(tmp_path / "sim")
    options = {"data_dir": tmp_path / "stores", "synthetic_root": sim}
    data = load("manifest", root=path, **options)
    assert len(data.train) == 2 + len(fake_sets.SIM)
    assert data.identity_names == ("x", "y")
    assert data.train.images[9].shape == (24, 32, 3)


def test_building_lists_images_that_cannot_be_decoded(tmp_path):
    root = fake_sets.vric(tmp_path)
    (root / "train_images" / "a1.jpg").write_bytes(fake_sets.PIXELS[:300])
    with pytest.raises(ValueError, match="image cannot be decoded: 'train_images/a1"):
        load("vric", root=root, data_dir=tmp_path / "stores")
    skipped = load("vric", root=root, data_dir=tmp_path / "stores", on_bad_image="skip")
    assert len(skipped.train) == 5


def test_a_damaged_store_is_named(tmp_path):
    root = fake_sets.vric(tmp_path)
    stores = tmp_path / "stores"
    load("vric", root=root, data_dir=stores)
    next(stores.rglob("metadata.json")).write_text("{}")
    with pytest.raises(ValueError, match=r"vric.*: the store is damaged"):
        load("vric", data_dir=stores)


def test_neither_store_nor_root(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root: vric is not built at .* yet"):
        load("vric", data_dir=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="data_dir: cannot write to"):
        load("vric", root=tmp_path, data_dir=tmp_path / "file")


def test_another_root_is_not_silently_ignored(tmp_path):
    stores = tmp_path / "stores"
    load("vric", root=fake_sets.vric(tmp_path / "a"), data_dir=stores)
    other = fake_sets.vric(tmp_path / "b")
    with pytest.raises(ValueError, match=r"was built from .*a/VRIC, not from .*b/VRIC"):
        load("vric", root=other, data_dir=stores)
    # The content of a manifest tells its stores apart.
    fake_sets.images(tmp_path, ["a.jpg", "b.jpg"])
    path = tmp_path / "cars.csv"
    for name in ("a", "b"):
        path.write_text(f"path,split,identity\n{name}.jpg,train,x\n")
        assert load("manifest", root=path, data_dir=stores).train.names == (
            f"{name}.jpg",
        )


def test_without_tfds_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    root = fake_sets.vric(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="leave data_dir out to read the"):
        load("vric", root=root, data_dir=tmp_path)
    assert len(load("vric", root=root).train) == 6
