import contextlib
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dex_jax.data import _store, load
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


@pytest.mark.parametrize("fault", ["no labels", "no images", "an image less"])
def test_a_damaged_store_is_named(fault, tmp_path):
    root = fake_sets.vric(tmp_path)
    stores = tmp_path / "stores"
    load("vric", root=root, data_dir=stores)
    metadata = next(stores.rglob("metadata.json"))
    if fault == "no labels":
        metadata.write_text("{}")
    elif fault == "no images":
        next(stores.rglob("*gallery*")).unlink()
    else:
        metadata.write_text(metadata.read_text().replace('"names": ["a0.jpg", ', ""))
        shutil.copy(next(stores.rglob("*query*")), next(stores.rglob("*train*")))
    with pytest.raises(ValueError, match=r"vric.*: the store is damaged") as error:
        load("vric", data_dir=stores)
    assert str(error.value).count("store is damaged") == 1


def test_records_are_written_as_they_come(tmp_path):
    size, count = 100_000, 200
    rng = np.random.default_rng(0)

    def records():
        for i in range(count):
            yield _store.Record(rng.bytes(size), i, 0, i, "real", f"{i}.jpg")

    @contextlib.contextmanager
    def fill():
        yield _store.Contents({"said": "yes"}, {"train": records()})

    place = _store.Place(tmp_path, "any", "label", "1.0.0")
    tracemalloc.start()
    store = _store.open_store(place, fill, instead="nothing")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < count * size / 2
    assert store.metadata == {"said": "yes"}


def test_a_set_of_several_files_keeps_its_order(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "RECORDS_PER_FILE", 2)
    root = fake_sets.vric(tmp_path)
    for i, path in enumerate(sorted((root / "train_images").iterdir())):
        path.write_bytes(fake_sets.jpeg(i))
    built = load("vric", root=root, data_dir=tmp_path / "stores")
    assert len(list((tmp_path / "stores").rglob("*train*"))) == 3
    _same(built, load("vric", root=root))


KINDS = ["vric", "procedural_vehicles"]


@pytest.fixture
def start():
    """Starts processes of `build_store`; ends those that are left."""
    processes = []

    def start(name: str, folder: Path) -> subprocess.Popen:
        root = "-" if name == "procedural_vehicles" else str(folder / "VRIC")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.data.build_store", name, root, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def _words_until(process: subprocess.Popen, *ends: str) -> list[str]:
    assert process.stdout is not None
    words = []
    for line in process.stdout:
        words.append(line.strip())
        if words[-1] in ends:
            break
    return words


def _load_here(name: str, folder: Path):
    if name == "vric":
        return load(name, root=folder / "VRIC", data_dir=folder)
    return load(name, size="tiny", data_dir=folder, progress=False)


@pytest.mark.parametrize("name", KINDS)
def test_two_processes_build_a_store_once(name, start, tmp_path):
    fake_sets.vric(tmp_path)
    first = start(name, tmp_path)
    assert _words_until(first, "written") == ["lock", "build", "written"]
    second = start(name, tmp_path)
    assert _words_until(second, "lock", "written") == ["lock"]
    one, _ = first.communicate("go on\n" * 3)  # a line for each split
    two, _ = second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    source = _load_here(name, tmp_path).source
    assert one.split() == ["written", "written", source]
    assert two.split() == [source]  # it waited and built nothing


@pytest.mark.parametrize("name", KINDS)
def test_what_a_killed_build_left_is_cleared(name, start, tmp_path):
    fake_sets.vric(tmp_path)
    process = start(name, tmp_path)
    assert _words_until(process, "written") == ["lock", "build", "written"]
    process.kill()
    process.wait()
    assert len(list(tmp_path.rglob("incomplete.*/*train*"))) == 1
    data = _load_here(name, tmp_path)
    assert not list(tmp_path.rglob("incomplete.*"))
    if name == "vric":
        plain = load(name, root=tmp_path / "VRIC")
    else:
        plain = load(name, size="tiny", in_memory=True, progress=False)
    _same(data, plain)


def test_neither_store_nor_root(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root: vric is not built at .* yet"):
        load("vric", data_dir=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="data_dir: cannot write to"):
        load("vric", root=tmp_path, data_dir=tmp_path / "file")


def test_a_set_that_is_nowhere_leaves_nothing_behind(tmp_path):
    with pytest.raises(FileNotFoundError, match="root: vric is not built at"):
        load("vric", root=tmp_path / "nothing", data_dir=tmp_path / "stores")
    assert not (tmp_path / "stores").exists()


def test_a_failed_build_leaves_no_store(tmp_path):
    root = fake_sets.vric(tmp_path / "raw")
    image = root / "train_images" / "a1.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:300])
    stores = tmp_path / "stores"
    with pytest.raises(ValueError, match="cannot be decoded"):
        load("vric", root=root, data_dir=stores)
    assert [p.name for p in stores.rglob("*") if not p.is_dir()] == [".lock"]
    assert not list(stores.rglob("incomplete*"))
    image.write_bytes(whole)
    # Somebody's file of such a name is not ours to remove.
    (lock,) = stores.rglob(".lock")
    (lock.parent / "incomplete.txt").write_text("mine")
    assert len(load("vric", root=root, data_dir=stores).train) > 0
    assert (lock.parent / "incomplete.txt").read_text() == "mine"


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


def test_a_pipe_in_a_store_is_damage(tmp_path):
    root = fake_sets.cityflow(tmp_path / "raw")
    load("cityflow", root=root, data_dir=tmp_path / "stores")
    (file,) = (tmp_path / "stores").rglob("dataset_info.json")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match=r"the store is damaged; .*dataset_info\.json"):
        load("cityflow", data_dir=tmp_path / "stores")
