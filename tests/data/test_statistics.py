import numpy as np
import pytest

from dex_jax.data import describe, load, statistics
from dex_jax.report import data_figure
from tests.data import fake_sets

pytestmark = pytest.mark.filterwarnings("ignore:.*instead of")


def test_counts_leave_unknown_labels_out(tmp_path):
    data = load("market1501", root=fake_sets.market(tmp_path), junk="keep")
    found = statistics(data.gallery)
    assert found.images == 4
    assert found.unlabelled == 1
    assert found.images_per_identity.tolist() == [1, 1, 1]
    assert found.cameras.tolist() == [1, 2, 5]
    assert found.tracklet_lengths.size == 0
    np.testing.assert_array_equal(found.shared_identities, np.eye(3))


def test_the_camera_graph_and_tracklets(tmp_path):
    data = load("cityflow", root=fake_sets.cityflow(tmp_path))
    found = statistics(data.train)
    # Six identities, each at the cameras 6, 7 and 9; the last track has one image.
    assert (found.shared_identities == 6).all()
    assert found.cameras_per_identity.tolist() == [3] * 6
    assert sorted(found.tracklet_lengths) == [1] + [4] * 17
    page = describe(data).splitlines()
    assert page[1].startswith("CityFlow-ReID: same-camera images kept")
    assert page[2].startswith("note: train_track.txt lacks 18 images")
    table = {line[:20].strip(): line[20:].split() for line in page}
    assert table["images"] == ["69", "4", "9"]
    assert table["identities"] == ["6", "0", "0"]
    assert "1 / 4 / 4" in next(p for p in page if p.startswith("images per tracklet"))
    at = page.index("train: identities that two cameras share")
    assert page[at + 1].split() == ["6", "7", "9"]
    assert page[at + 2].split() == ["6", "6", "6", "6"]


def test_a_set_without_cameras_and_tracklets_is_drawn(tmp_path):
    figure = data_figure(load("vehicleid", root=fake_sets.vehicleid(tmp_path)))
    (part,) = figure.subfigs  # no camera graph
    assert [text.get_text() for text in part.axes[2].texts] == [
        "no tracklets are known"
    ]
