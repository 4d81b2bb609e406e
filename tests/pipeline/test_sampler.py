import numpy as np
import pytest

from dex_jax.pipeline import IdentityBatches

IDENTITIES = np.repeat([5, 2, 9, 7, 30], [4, 6, 5, 4, 8])


def test_a_batch_is_p_identities_with_k_images_each():
    batches = IdentityBatches(IDENTITIES, ids_per_batch=3, images_per_id=4)
    for step in range(6):
        indices = batches.indices(step)
        assert indices.shape == (12,)
        assert len(set(indices)) == 12
        rows = IDENTITIES[indices].reshape(3, 4)
        assert (rows == rows[:, :1]).all()
        assert len(set(rows[:, 0])) == 3


def test_an_epoch_is_one_pass_over_identities():
    batches = IdentityBatches(IDENTITIES, ids_per_batch=2, images_per_id=2)
    assert batches.steps_per_epoch == 3  # ceil(5 / 2)
    for epoch in range(4):
        steps = range(3 * epoch, 3 * epoch + 3)
        seen = np.concatenate([IDENTITIES[batches.indices(s)[::2]] for s in steps])
        assert sorted(set(seen)) == [2, 5, 7, 9, 30]
        assert seen[5] == seen[0]  # the last batch is filled from the beginning


def test_batches_are_a_pure_function_of_seed_and_step():
    a = IdentityBatches(IDENTITIES, ids_per_batch=2, images_per_id=2, seed=3)
    b = IdentityBatches(IDENTITIES, ids_per_batch=2, images_per_id=2, seed=3)
    expected = [a.indices(step) for step in range(8)]
    for step in (7, 0, 3, 7):
        np.testing.assert_array_equal(b.indices(step), expected[step])
    other = IdentityBatches(IDENTITIES, ids_per_batch=2, images_per_id=2, seed=4)
    assert any((other.indices(s) != expected[s]).any() for s in range(3))


def test_every_image_is_drawn_about_equally_often():
    batches = IdentityBatches(np.repeat([0, 1], 6), ids_per_batch=2, images_per_id=2)
    drawn = np.concatenate([batches.indices(step) for step in range(900)])
    counts = np.bincount(drawn, minlength=12)
    # 900 draws of 2 of 6: 300 expected, deviation sqrt(900 * 1/3 * 2/3) = 14.
    assert np.abs(counts - 300).max() < 60


def test_few_images_are_repeated_evenly_and_said_once():
    with pytest.warns(UserWarning, match=r"2 of 3 identities have fewer than") as said:
        batches = IdentityBatches(
            [0, 1, 1, 2, 2, 2, 2], images_per_id=4, ids_per_batch=3
        )
    assert len(said) == 1
    assert batches.repeated == 2
    counts = np.bincount(batches.indices(0), minlength=7)
    assert counts.tolist() == [4, 2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("identities", "options", "message"),
    [
        ([], {}, "identities: expected at least one integer"),
        ([0.5], {}, "identities: expected at least one integer"),
        ([0, -1, -1], {}, r"identities: 2 image\(s\) are unlabelled, first at 1"),
        ([0, 0, 1, 1], {}, "ids_per_batch: 8 identities .* only 2"),
        ([0], {"ids_per_batch": 0}, "ids_per_batch: expected at least 1"),
        ([0], {"images_per_id": 2.5}, "images_per_id: expected a whole number"),
        ([0], {"seed": -1}, "seed: expected at least 0"),
    ],
)
def test_bad_input(identities, options, message):
    with pytest.raises(ValueError, match=message):
        IdentityBatches(np.array(identities), **options)
