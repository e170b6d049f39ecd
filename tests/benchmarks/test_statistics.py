from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.stats.intervals.bootstrap import Bootstrap, Replicates, half_width, holm, level

PROMPTS = 30
BOOTSTRAP = Bootstrap(range(PROMPTS), resamples=300)
SCORES = arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.just(PROMPTS)),
    elements=st.floats(-100, 100).map(lambda x: round(x, 3)),
)


def two_way(
    generator: np.random.Generator, seeds: int, of_seed: float, of_prompt: float, rest: float = 1.0
) -> np.ndarray:
    """Scores around 0 with the given standard deviations of seeds, prompts and their pairs."""
    return (
        of_seed * generator.normal(size=(seeds, 1))
        + of_prompt * generator.normal(size=(1, PROMPTS))
        + rest * generator.normal(size=(seeds, PROMPTS))
    )


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize(("of_seed", "of_prompt"), [(1.0, 0.3), (0.3, 1.0), (0.1, 1.0)])
def test_interval_covers_the_truth(seeds: int, of_seed: float, of_prompt: float) -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(400):
        scores = two_way(generator, seeds, of_seed, of_prompt)
        interval = BOOTSTRAP.interval(BOOTSTRAP.means(scores))
        hits += interval.low <= 0 <= interval.high
    # with 2 or 3 seeds Student's t of one or two degrees of freedom errs to the wide side
    assert 0.90 <= hits / 400 <= (1 if seeds <= 3 else 0.99)


@pytest.mark.parametrize(("seeds", "of_seed"), [(2, 0.6), (2, 1.2), (3, 0.6), (5, 0.6)])
def test_seeds_that_agree_by_chance_are_no_evidence(seeds: int, of_seed: float) -> None:
    """Equal arms against one network: so small a level must be as rare as it says. With common
    degrees of freedom 5% of the levels of two seeds were below 0.005."""
    generator, levels = np.random.default_rng(16), []
    for _ in range(600):
        arm = of_seed * generator.normal(size=(seeds, 1))
        arm = arm + 0.5 * generator.normal(size=(seeds, PROMPTS))
        network = 0.5 * generator.normal(size=(1, PROMPTS))
        levels.append(BOOTSTRAP.difference(*map(BOOTSTRAP.means, (arm, network)), True).p)
    for x in (0.05, 0.005):
        assert np.mean(np.array(levels) < x) <= x + 3 * np.sqrt(x * (1 - x) / 600)


def test_half_widths_of_seeds_and_prompts_add_in_squares() -> None:
    """Against scipy's own quantiles; one part alone is Student's interval."""
    t = scipy.stats.t.ppf
    assert half_width([(0.04, 7)], 0.025) == pytest.approx(0.2 * t(0.975, 7))
    both = half_width([(0.04, 1), (0.09, 29)], 0.005)
    assert both**2 == pytest.approx(0.04 * t(0.995, 1) ** 2 + 0.09 * t(0.995, 29) ** 2)
    parts = [(0.04, 1), (0.09, 29)]
    for tail in (0.2, 0.025, 1e-3, 1e-8):
        value, width = half_width(parts, tail), half_width(parts, 0.025)
        assert level(value, value - width, value + width, parts) == pytest.approx(2 * tail)


@pytest.mark.parametrize("paired", [True, False])
def test_a_difference_mirrors_its_reverse(paired: bool) -> None:
    generator = np.random.default_rng(7)
    a, b = (BOOTSTRAP.means(two_way(generator, 4, 1.0, 0.5)) for _ in range(2))
    there, back = BOOTSTRAP.difference(a, b, paired), BOOTSTRAP.difference(b, a, paired)
    assert (back.value, back.low, back.high, back.p) == pytest.approx(
        (-there.value, -there.high, -there.low, there.p), rel=1e-12
    )


@pytest.mark.parametrize("paired", [True, False])
def test_difference_covers_the_truth(paired: bool) -> None:
    generator = np.random.default_rng(6)
    hits = 0
    for _ in range(400):
        # seeds share what they have in common only where they are the same ones
        prompts = generator.normal(size=(1, PROMPTS))
        common = 0.5 * generator.normal(size=(5, 1))
        a, b = (
            prompts
            + (common if paired else 0.5 * generator.normal(size=(5, 1)))
            + two_way(generator, 5, 0.2, 0.3)
            for _ in range(2)
        )
        found = BOOTSTRAP.difference(BOOTSTRAP.means(a), BOOTSTRAP.means(b), paired)
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / 400 <= 0.99


def test_one_seed_covers_the_choice_of_prompts() -> None:
    generator = np.random.default_rng(7)
    hits = 0
    for _ in range(400):
        interval = BOOTSTRAP.interval(BOOTSTRAP.means(two_way(generator, 1, 0, 1)))
        hits += interval.low <= 0 <= interval.high
        assert interval.seeds == 1 and interval.seed_sd is None
    assert 0.90 <= hits / 400 <= 0.98


def test_pairing_narrows_the_interval() -> None:
    generator = np.random.default_rng(8)
    common = two_way(generator, 5, 1, 1)
    a = BOOTSTRAP.means(common + 0.1 * two_way(generator, 5, 1, 1))
    b = BOOTSTRAP.means(common + 0.1 * two_way(generator, 5, 1, 1))
    paired = BOOTSTRAP.difference(a, b, paired=True)
    apart = BOOTSTRAP.difference(a, b, paired=False)
    assert paired.value == pytest.approx(apart.value)
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)


def test_a_copy_from_other_seeds_is_as_far_as_the_seeds_are_spread() -> None:
    """With the same draws for both sides there would be no deviation, and no interval."""
    arm = BOOTSTRAP.means(two_way(np.random.default_rng(19), 8, 1.0, 0.5, 0.0))
    found = BOOTSTRAP.difference(arm, arm, paired=False)
    wanted = half_width([(arm.values.var(ddof=1) / 8, 7)] * 2, 0.025)
    assert found.value == 0
    assert (found.low, found.high) == pytest.approx((-wanted, wanted), rel=0.1)


def test_variances_are_shown_apart() -> None:
    generator = np.random.default_rng(9)
    of_seeds = BOOTSTRAP.interval(BOOTSTRAP.means(two_way(generator, 5, 3, 0.01, 0.01)))
    of_prompts = BOOTSTRAP.interval(BOOTSTRAP.means(two_way(generator, 5, 0.01, 3, 0.01)))
    assert of_seeds.seed_sd is not None and of_prompts.seed_sd is not None
    assert of_seeds.seed_sd > 1 and of_seeds.prompt_se < 0.01
    assert of_prompts.seed_sd < 0.05 and of_prompts.prompt_se > 0.3


def test_a_biased_statistic_is_recentred() -> None:
    def distance(rows: np.ndarray) -> float:
        return float((rows.mean(0) ** 2).sum())  # a resample's mean is further from 0

    features = np.random.default_rng(10).normal(size=(3, PROMPTS, 16))
    replicates = BOOTSTRAP.statistic(features, distance)
    interval = BOOTSTRAP.interval(replicates)
    assert replicates.resampled.mean() > 1.5 * interval.value
    assert interval.low < interval.value < interval.high
    middle = (interval.low + interval.high) / 2
    assert abs(middle - interval.value) < 0.3 * (interval.high - interval.low)


def test_statistic_of_fewer_resamples_pairs_with_all() -> None:
    scores = np.random.default_rng(11).normal(size=(3, PROMPTS))
    some = BOOTSTRAP.statistic(scores, np.mean, 50)
    every = BOOTSTRAP.means(scores)
    assert some.resampled == pytest.approx(every.resampled[:, :50])
    found = BOOTSTRAP.difference(some, every, paired=True)
    assert found.low == pytest.approx(0) and found.high == pytest.approx(0)


@given(SCORES)
@settings(max_examples=60, deadline=None)
def test_means_are_the_statistic_of_the_mean(scores: np.ndarray) -> None:
    fast, slow = BOOTSTRAP.means(scores), BOOTSTRAP.statistic(scores, np.mean, 20)
    assert fast.values == pytest.approx(slow.values, abs=1e-9)
    assert fast.resampled[:, :20] == pytest.approx(slow.resampled, abs=1e-9)


@given(SCORES, st.floats(-50, 50), st.floats(0.1, 10))
@settings(max_examples=60, deadline=None)
def test_intervals_move_and_scale_with_the_scores(
    scores: np.ndarray, shift: float, scale: float
) -> None:
    before = BOOTSTRAP.interval(BOOTSTRAP.means(scores))
    after = BOOTSTRAP.interval(BOOTSTRAP.means(scores * scale + shift))
    if np.ptp(scores) == 0:
        assert np.isnan([before.low, after.high]).all()
        return
    assert before.low <= before.high
    assert after.value == pytest.approx(before.value * scale + shift, abs=1e-6)
    assert after.low == pytest.approx(before.low * scale + shift, abs=1e-6)
    assert after.high == pytest.approx(before.high * scale + shift, abs=1e-6)


@given(SCORES)
@settings(max_examples=60, deadline=None)
def test_difference_changes_its_sign_with_its_sides(scores: np.ndarray) -> None:
    a, b = BOOTSTRAP.means(scores), BOOTSTRAP.means(scores[:, ::-1] * 2)
    forth, back = BOOTSTRAP.difference(a, b, True), BOOTSTRAP.difference(b, a, True)
    assert forth.value == pytest.approx(-back.value, abs=1e-9)
    assert forth.low == pytest.approx(-back.high, abs=1e-9, nan_ok=True)
    assert forth.p == pytest.approx(back.p, rel=1e-6)
    same = BOOTSTRAP.difference(a, a, paired=True)
    assert (same.value, same.significant, same.p) == (0, False, 1) and np.isnan(
        [same.low, same.high]
    ).all()


@given(st.floats(-1e6, 1e6), st.integers(1, 5))
def test_equal_scores_have_no_interval_without_bounds(score: float, seeds: int) -> None:
    interval = BOOTSTRAP.interval(BOOTSTRAP.means(np.full((seeds, PROMPTS), score)))
    assert interval.value == pytest.approx(score, rel=1e-12)
    assert (
        np.isnan([interval.low, interval.high]).all()
        and not interval.significant
        and interval.p == 1
    )


@given(st.integers(3, 200), st.integers(1, 5), st.sampled_from([0.0, 1.0]))
@settings(max_examples=25)
def test_a_share_at_its_end_has_the_exact_binomial_interval(
    prompts: int, seeds: int, share: float
) -> None:
    bootstrap = Bootstrap(range(prompts), resamples=20)
    found = bootstrap.interval(bootstrap.means(np.full((seeds, prompts), share)), (0, 1))
    exact = scipy.stats.binomtest(int(share * prompts), prompts).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.low < found.high


@pytest.mark.parametrize("prompts", [3, 5, 6, 20])
def test_all_against_none_needs_enough_prompts(prompts: int) -> None:
    """In every prompt the same arm is better: as sure as a sign test, which needs 6 prompts."""
    bootstrap = Bootstrap(range(prompts), resamples=20)
    ones, zeros = (bootstrap.means(np.full((2, prompts), score)) for score in (1.0, 0.0))
    found = bootstrap.difference(ones, zeros, True, (0, 1))
    assert found.p == pytest.approx(min(1, 2 * 0.5**prompts))
    assert found.significant == (found.p < 0.05) == (prompts >= 6)


def test_two_prompts_show_nothing() -> None:
    bootstrap = Bootstrap(["a", "b"] * 3, resamples=100)
    generator = np.random.default_rng(4)
    a, b = (bootstrap.means(size + generator.normal(size=(5, 6))) for size in (0.0, 1e6))
    for found in (bootstrap.difference(a, b, True), bootstrap.interval(b, (0, 1e7))):
        assert not found.significant and found.p == 1 and np.isnan([found.low, found.high]).all()


@given(st.integers(1, 5), st.floats(-1.5, 1.5), st.booleans())
@settings(max_examples=60)
def test_the_level_is_below_a_twentieth_where_zero_is_excluded(
    seeds: int, shift: float, paired: bool
) -> None:
    generator = np.random.default_rng(seeds)
    a, b = (BOOTSTRAP.means(two_way(generator, seeds, 0.2, 0.5) + x) for x in (shift, 0))
    found = BOOTSTRAP.difference(a, b, paired)
    assert (found.p < 0.05) == found.significant and 0 <= found.p <= 1


def test_levels_of_equal_arms_are_uniform() -> None:
    """A level below x comes about with a chance of about x, by simulation."""
    generator, levels = np.random.default_rng(15), []
    for _ in range(400):
        scores = [two_way(generator, 5, 0.5, 0.5) for _ in range(2)]
        levels.append(BOOTSTRAP.difference(*map(BOOTSTRAP.means, scores), paired=True).p)
    for x in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(np.array(levels) < x) <= x + 3 * np.sqrt(x * (1 - x) / 400)
    assert np.mean(np.array(levels) < 0.5) > 0.3


def test_intervals_stop_at_the_bounds() -> None:
    scores = (np.random.default_rng(16).random((3, PROMPTS)) > 0.05) * 1.0
    free = BOOTSTRAP.interval(BOOTSTRAP.means(scores))
    found = BOOTSTRAP.interval(BOOTSTRAP.means(scores), (0, 1))
    assert free.high > 1 == found.high and found.low == free.low


def test_an_open_end_bounds_one_side() -> None:
    """A distance cannot be below 0, though its interval would reach there; it may be large."""
    scores = np.random.default_rng(18).exponential(size=(2, 5)) ** 3
    bootstrap = Bootstrap(range(5), resamples=200)
    free, found = (bootstrap.interval(bootstrap.means(scores), b) for b in (None, (0, None)))
    assert free.low < 0 == found.low and found.high == free.high and found.p == free.p
    equal = bootstrap.interval(bootstrap.means(np.full((2, 5), 0.3)), (0, None))
    assert np.isnan([equal.low, equal.high]).all()


def test_rounding_of_float32_is_no_spread() -> None:
    scores = np.float32(1) + np.float32(6e-8) * (np.arange(PROMPTS) % 2).astype(np.float32)
    found = BOOTSTRAP.interval(BOOTSTRAP.means(np.stack([scores] * 2)))
    assert np.ptp(scores) > 0 and np.isnan([found.low, found.high]).all()


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm(levels: list[float]) -> None:
    adjusted = holm(levels)
    wanted = holm_by_definition(levels)
    assert adjusted == pytest.approx(wanted)


def holm_by_definition(levels: list[float]) -> list[float]:
    """By the definition: the largest over all smaller levels of level times those not smaller."""
    return [
        min(1.0, max(sum(1 for y in levels if y >= x) * x for x in levels if x <= level))
        for level in levels
    ]


def test_distance_to_a_target() -> None:
    """0.9 and 1.1 are equally far from 1; 1.5 is further than 1.04, whichever is higher."""
    generator = np.random.default_rng(17)
    near, over, under = (
        BOOTSTRAP.means(x + 0.01 * generator.normal(size=(2, PROMPTS))).distance_to(1.0)
        for x in (1.04, 1.5, 0.96)
    )
    found = BOOTSTRAP.difference(near, over, True)
    assert found.value == pytest.approx(-0.46, abs=0.01) and found.significant
    assert not BOOTSTRAP.difference(near, under, True).significant


def test_a_single_network_goes_with_every_seed() -> None:
    generator = np.random.default_rng(12)
    arm = BOOTSTRAP.means(two_way(generator, 4, 0.1, 1))
    reference = BOOTSTRAP.means(two_way(generator, 1, 0, 1))
    difference = arm - reference
    assert difference.resampled.shape == (4, 300)
    found = BOOTSTRAP.difference(arm, reference, paired=True)
    assert found.value == pytest.approx(arm.values.mean() - reference.values[0])


def test_videos_of_a_prompt_stay_together() -> None:
    prompts = [row // 4 for row in range(4 * PROMPTS)]
    bootstrap = Bootstrap(prompts, resamples=300)
    assert (bootstrap.prompts, bootstrap.rows) == (PROMPTS, 4 * PROMPTS)
    generator = np.random.default_rng(13)
    hits, naive = 0, 0
    for _ in range(300):
        scores = np.repeat(generator.normal(size=(1, PROMPTS)), 4, axis=1)
        scores = scores + 0.3 * generator.normal(size=scores.shape)
        found = bootstrap.interval(bootstrap.means(scores))
        hits += found.low <= 0 <= found.high
        apart = Bootstrap(range(4 * PROMPTS), resamples=50)
        found = apart.interval(apart.means(scores))
        naive += found.low <= 0 <= found.high
    assert 0.90 <= hits / 300 <= 0.99
    assert naive / 300 < 0.8  # as if four times as many prompts had been seen


def test_prompts_may_have_different_numbers_of_videos() -> None:
    prompts = ["a", "b", "b", "c", "c", "c"]
    bootstrap = Bootstrap(prompts, resamples=50)
    scores = np.random.default_rng(14).normal(size=(2, 6))
    fast, slow = bootstrap.means(scores), bootstrap.statistic(scores, np.mean)
    assert fast.resampled == pytest.approx(slow.resampled)
    for pick in bootstrap.picks:
        counts = np.bincount(pick, minlength=6)
        assert counts[1] == counts[2] and counts[3] == counts[4] == counts[5]


def test_what_is_not_a_number_has_no_interval() -> None:
    replicates = Replicates(np.array([np.nan]), np.full((1, 300), np.nan))
    interval = BOOTSTRAP.interval(replicates)
    assert np.isnan(interval.value) and np.isnan(interval.low) and not interval.significant


def test_too_few_prompts() -> None:
    with pytest.raises(ValueError, match="1 prompts"):
        Bootstrap(["a 7", "a 7"])
