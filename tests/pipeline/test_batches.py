import itertools
import threading

import numpy as np
import pytest
from PIL import Image

from dex_jax.data import ReidSplit
from dex_jax.data._images import ImageFiles, file_sizes, find_faults, resize
from dex_jax.pipeline import IdentityBatches, eval_batches, train_batches
from dex_jax.pipeline._batches import ResizedImages

IDENTITIES = np.repeat([10, 3, 6], 4)
N, S = 12, 16


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(N):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg")
    return tmp_path


@pytest.fixture
def split(folder):
    names = tuple(f"{i}.jpg" for i in range(N))
    return ReidSplit(ImageFiles(folder, names), names, IDENTITIES)


@pytest.fixture
def batches():
    return IdentityBatches(IDENTITIES, ids_per_batch=2, images_per_id=2)


def _take(iterator, number):
    taken = list(itertools.islice(iterator, number))
    iterator.close()
    return taken


def test_a_batch_holds_the_resized_images_and_their_classes(split, batches):
    for step, batch in enumerate(_take(train_batches(split, batches, image_size=S), 5)):
        assert batch.step == step
        np.testing.assert_array_equal(batch.indices, batches.indices(step))
        assert batch.labels.dtype == np.int32
        # Sorted identities 3, 6, 10 are classes 0, 1, 2.
        expected = [{3: 0, 6: 1, 10: 2}[int(IDENTITIES[i])] for i in batch.indices]
        assert batch.labels.tolist() == expected
        for image, index in zip(batch.images, batch.indices, strict=True):
            np.testing.assert_array_equal(image, resize(split.images[int(index)], S))


@pytest.mark.parametrize("road", ["memory", "disk", "decoded anew"])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_road_does_not_change_the_batches(split, batches, tmp_path, road, workers):
    plain = _take(train_batches(split, batches, image_size=S), 7)
    options = {
        "memory": {},
        "disk": {"memory": 0, "cache_dir": tmp_path / "cache"},
        "decoded anew": {"memory": 0},
    }[road]
    other = train_batches(
        split, batches, image_size=S, start_step=3, workers=workers, **options
    )
    for a, b in zip(plain[3:], _take(other, 4), strict=True):
        assert a.step == b.step
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_hosts_share_a_batch(split, batches):
    (whole,) = _take(train_batches(split, batches, image_size=S, start_step=4), 1)
    parts = [
        _take(
            train_batches(
                split, batches, image_size=S, start_step=4, process=(host, 2)
            ),
            1,
        )[0]
        for host in range(2)
    ]
    np.testing.assert_array_equal(
        np.concatenate([p.images for p in parts]), whole.images
    )
    np.testing.assert_array_equal(
        np.concatenate([p.indices for p in parts]), whole.indices
    )


def test_an_image_is_decoded_once_where_there_is_room():
    class Counting:
        def __init__(self):
            self.asked = []

        def __len__(self):
            return 3

        def __getitem__(self, index):
            self.asked.append(index)
            return np.full((4, 4, 3), index, np.uint8)

    images = Counting()
    kept = ResizedImages(images, 4, memory=3 * 4 * 4 * 3)
    assert kept.kept
    for _ in range(2):
        assert kept.read(np.array([2, 0, 2]))[:, 0, 0, 0].tolist() == [2, 0, 2]
    assert images.asked == [2, 0]
    anew = ResizedImages(images, 4, memory=3 * 4 * 4 * 3 - 1)
    assert not anew.kept
    anew.read(np.array([1]))
    anew.read(np.array([1]))
    assert images.asked == [2, 0, 1, 1]


def test_the_temporary_cache_leaves_no_file(split, batches, tmp_path):
    cache = tmp_path / "cache"
    iterator = train_batches(split, batches, image_size=S, memory=0, cache_dir=cache)
    next(iterator)
    assert list(cache.iterdir()) == []
    iterator.close()


def test_threads_end_with_the_iterator(split, batches):
    before = threading.active_count()
    _take(train_batches(split, batches, image_size=S), 2)
    list(eval_batches(split, image_size=S, batch_size=5))
    assert threading.active_count() == before


@pytest.mark.parametrize("batch_size", [1, 5, 12, 20])
def test_evaluation_reads_each_image_once_in_order(split, batch_size):
    got = list(eval_batches(split, image_size=S, batch_size=batch_size))
    assert len(got) == -(-N // batch_size)
    assert all(b.images.shape == (batch_size, S, S, 3) for b in got)
    images = np.concatenate([b.images[: b.size] for b in got])
    expected = np.stack([resize(split.images[i], S) for i in range(N)])
    np.testing.assert_array_equal(images, expected)
    assert not got[-1].images[got[-1].size :].any()


@pytest.mark.parametrize("harm", ["truncated", "empty", "text"])
def test_an_image_that_cannot_be_decoded_is_named(split, batches, folder, harm):
    path = folder / "5.jpg"
    content = {"truncated": path.read_bytes()[:300], "empty": b"", "text": b"no image"}
    path.write_bytes(content[harm])
    message = r"5\.jpg: image file " + (
        "is empty" if harm == "empty" else "cannot be decoded"
    )
    with pytest.raises(ValueError, match=message):
        list(eval_batches(split, image_size=S, batch_size=4))
    with pytest.raises(ValueError, match=message):
        _take(train_batches(split, batches, image_size=S), 40)


def test_faults_are_found_in_one_pass(split, folder):
    (folder / "1.jpg").unlink()
    (folder / "2.jpg").write_bytes(b"")
    whole = (folder / "3.jpg").read_bytes()
    (folder / "3.jpg").write_bytes(whole[:400])
    sizes = file_sizes(split.images)
    quick = find_faults(split.images, sizes, decode_all=False)
    assert quick == {1: "file not found", 2: "file is empty"}
    full = find_faults(split.images, sizes, decode_all=True)
    assert full == quick | {3: "image cannot be decoded"}
    with pytest.raises(FileNotFoundError, match=r"1\.jpg: no such image file"):
        split.images[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size: expected at least 1"),
        ({"start_step": -1}, "start_step: expected at least 0"),
        ({"workers": 0}, "workers: expected at least 1"),
        ({"process": (2, 2)}, r"process: .*got \(2, 2\)"),
        ({"process": (0, 3)}, "process: .*hosts dividing the batch of 4"),
    ],
)
def test_bad_options_of_training(split, batches, options, message):
    with pytest.raises(ValueError, match=message):
        train_batches(split, batches, **({"image_size": S} | options))


def test_a_sampler_of_another_split(split, batches):
    with pytest.raises(ValueError, match=r"batches: made for 12 images.* has 4"):
        train_batches(split.take([0, 1, 2, 3]), batches, image_size=S)


def test_an_empty_split_is_refused(split):
    with pytest.raises(ValueError, match="split: is empty"):
        eval_batches(split.take([]), image_size=S, batch_size=2)
