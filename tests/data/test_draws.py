"""What is random of a sample: distinct photos, uniform counts, independent drops."""

import dataclasses

import numpy as np
import pytest

from flashface_jax.data.loading.draws import Augmentation, DrawOptions, DropRates, draw_sample

MANY = 20_000


def draws(options, photos=12, seed=0, count=MANY):
    return [draw_sample(np.random.default_rng([seed, i]), photos, options) for i in range(count)]


def within(frequency, rate, count=MANY):
    """Whether a frequency is within five standard errors of its rate."""
    return abs(frequency - rate) < 5 * (rate * (1 - rate) / count) ** 0.5


def test_targets_and_references_are_uniform_and_distinct():
    drawn = draws(DrawOptions())
    counts = np.bincount([draw.references for draw in drawn], minlength=5)
    assert counts[0] == 0
    assert all(within(count / MANY, 0.25) for count in counts[1:]), counts / MANY
    for place in range(5):
        photos = np.bincount([draw.order[place] for draw in drawn], minlength=12) / MANY
        assert all(within(frequency, 1 / 12) for frequency in photos), (place, photos)
    assert all(sorted(draw.order) == list(range(12)) for draw in drawn[:100])


@pytest.mark.parametrize("photos", [2, 3, 4])
def test_few_photos_give_fewer_references_and_never_the_target(photos):
    drawn = draws(DrawOptions(), photos, count=500)
    assert {draw.references for draw in drawn} == set(range(1, photos))


def test_drops_are_independent_and_as_frequent_as_asked():
    drawn = draws(DrawOptions(drop=DropRates(0.1, 0.2, 0.3)))
    dropped = np.array([[d.drop_text, d.drop_face_mask, d.drop_references] for d in drawn])
    for frequency, rate in zip(dropped.mean(0), (0.1, 0.2, 0.3), strict=True):
        assert within(frequency, rate), frequency
    correlation = np.corrcoef(dropped.T)
    assert np.abs(correlation - np.eye(3)).max() < 5 / MANY**0.5, correlation


def test_an_option_changes_nothing_but_itself():
    plain = draws(DrawOptions(), count=200)
    other = DrawOptions(drop=DropRates(0.5, 0.5, 0.5), augmentation=Augmentation(0.5, 0.1, 0.1))
    varied = draws(other, count=200)
    for a, b in zip(plain, varied, strict=True):
        assert a.order.tolist() == b.order.tolist()
        assert a.references == b.references
    assert not any(draw.flips.any() for draw in plain)
    assert all((draw.colours == 1).all() for draw in plain)


def test_flips_and_colours_are_as_strong_as_asked():
    drawn = draws(DrawOptions(augmentation=Augmentation(0.3, 0.1, 0.2, 0.4)), count=4000)
    flips = np.stack([draw.flips for draw in drawn])
    assert flips.shape == (4000, 5)
    assert all(within(frequency, 0.3, 4000) for frequency in flips.mean(0)), flips.mean(0)
    colours = np.concatenate([draw.colours for draw in drawn])
    for factors, strength in zip(colours.T, (0.1, 0.2, 0.4), strict=True):
        assert 0.99 * strength < np.abs(factors - 1).max() <= strength


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DropRates(text=1.5), "drop rate of text is 1.5"),
        (lambda: DropRates(references=-0.1), "drop rate of references is -0.1"),
        (lambda: Augmentation(flip=2.0), "augmentation.flip is 2.0"),
        (lambda: DrawOptions(max_references=0), "max_references is 0"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_options_are_plain_values_that_json_can_hold():
    assert dataclasses.asdict(DrawOptions())["drop"] == {
        "text": 0.1,
        "face_mask": 0.1,
        "references": 0.1,
    }
