"""95% intervals for scores of trained networks, over training seeds and prompts at once.

The scores of an arm form an array `[S seeds, P rows]` (or features `[S, P, D]`), a row being a
video of a prompt: every training seed is scored on the same prompts from the same noise. Two things
would differ if the study were made again, the seeds and the prompts, so both are resampled, crossed
and independently of each other (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1,
2007, 386-411; arXiv 0712.1111). All arms see the same resampled prompts, and arms with the same
training seeds the same resampled seeds, so that a difference is paired.

The bootstrap gives the shape of an interval; two of its faults are mended:

- Its replicates may be biased (a Fréchet distance of resampled rows is too large), so they are
  centred on their own mean and only their deviations are used.
- With few seeds it is too narrow. Its deviations are stretched to where the variances of a two-way
  layout put the ends: seeds and prompts have a half-width each, Student's t with their own degrees
  of freedom times the standard error, and the squares of the two add up (MOVER: Zou and Donner,
  Statistics in Medicine 27, 2008, 1693-1702: the lower end of `d = a - b` is
  `d - sqrt((a - low_a)^2 + (high_b - b)^2)`). Common degrees of freedom (Welch and Satterthwaite)
  would be too many where two or three seeds happen to agree: of equal arms, 3% would then be called
  different at the level 0.002.

Where scores have no spread at all (every video of every seed shows the right digit), resampling
cannot say how far off they may be. A metric that declares its bounds then has the exact binomial
interval: of P prompts none was different, so at most a share `1 - 0.025^(1/P)` of all prompts is,
and each of those is off by no more than the bounds allow. Without bounds there is no interval. With
two prompts there is none either: one degree of freedom shows nothing.
`benchmarks.stats.reproduce` gets the intervals of a report from its samples.parquet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

Array = NDArray[np.float64]

#: The quantiles of the normal and of the deviations that bound 95%.
TAILS = (0.025, 0.975)
NORMAL_QUANTILE = 1.959964
#: A spread that is this small beside the scores is rounding: metrics score in float32.
ROUNDING = 1e-6
#: Fewer prompts than these have no interval.
FEWEST_PROMPTS = 3

#: The logarithm of the smallest tail that is looked at, and the largest level below 5%.
SMALLEST = math.log(1e-120)
LARGEST_SIGNIFICANT = math.nextafter(2 * TAILS[0], 0)

#: The least and the largest score of a metric; None for an open end.
Bounds = tuple[float | None, float | None] | None
#: A variance with its degrees of freedom.
Part = tuple[float, int]


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval.

    `low` and `high` are NaN where there is no interval: fewer than 3 prompts, no spread in a metric
    without bounds, or scores that are not finite.

    Attributes:
        seeds: training seeds behind it; with one, the interval covers the choice of prompts only.
        p: the smallest level, two-sided, at which the interval would exclude zero, so below 0.05
            exactly where it does; 1 where there is no interval.
        seed_sd: standard deviation of one training's value, over seeds; None with one seed.
        prompt_se: standard error from the choice of prompts, for these very networks.
    """

    value: float
    low: float
    high: float
    seeds: int
    seed_sd: float | None
    prompt_se: float
    p: float = 1.0

    @property
    def significant(self) -> bool:
        """The interval excludes zero; False without an interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Replicates:
    """A statistic of every seed: on all prompts and on each resample of them.

    Attributes:
        values: `[S]`.
        resampled: `[S, R]`; column `r` of every arm used the same prompts.
        not_finite: how many scores behind them are NaN or infinite.
    """

    values: Array
    resampled: Array
    not_finite: int = 0

    def __sub__(self, other: Replicates) -> Replicates:
        """The difference seed by seed; one row on either side goes with every seed."""
        return Replicates(self.values - other.values, self.resampled - other.resampled)

    def rounded(self) -> Replicates:
        """As a file of float32 keeps them."""
        values = self.values.astype(np.float32).astype(np.float64)
        resampled = self.resampled.astype(np.float32).astype(np.float64)
        return Replicates(values, resampled, self.not_finite)

    def distance_to(self, target: float) -> Replicates:
        """How far the statistic is from the value that it should have."""
        return Replicates(abs(self.values - target), abs(self.resampled - target))


class Bootstrap:
    """The resamples that all arms of a study share.

    Attributes:
        prompts: how many different prompts there are.
        picks: for each of R resamples the rows that it holds. Prompts are drawn, each with all of
            its rows, since videos of the same prompt are not independent.
    """

    def __init__(self, rows: Sequence[Hashable], resamples: int = 1000, seed: int = 0) -> None:
        """`rows`: the prompt of every row of scores."""
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(rows))}
        self.rows, self.prompts = len(rows), len(numbers)
        self.resamples, self.seed = resamples, seed
        if self.prompts < 2 or resamples < 2:
            raise ValueError(f"cannot resample {self.prompts} prompts {resamples} times")
        of_prompt = np.array([numbers[prompt] for prompt in rows])
        members = [np.flatnonzero(of_prompt == number) for number in range(self.prompts)]
        generator = np.random.default_rng([seed, 0])
        drawn = generator.integers(self.prompts, size=(resamples, self.prompts))
        self.picks = [
            np.concatenate([members[number] for number in resample]) for resample in drawn
        ]
        self._shares = np.stack(
            [np.bincount(pick, minlength=self.rows) / len(pick) for pick in self.picks]
        )

    def means(self, rows: Array) -> Replicates:
        """Replicates of the mean of scores `[S, P]`."""
        rows = np.asarray(rows, np.float64)
        # relative to the first row, so that equal scores have exactly no spread
        first = rows[:, :1]
        rest = rows - first
        return Replicates(first[:, 0] + rest.mean(1), first + rest @ self._shares.T)

    def statistic(
        self,
        rows: Array,
        reduce: Callable[[Array], float],
        resamples: int | None = None,
        reduce_many: Callable[[Array], Array] | None = None,
    ) -> Replicates:
        """Replicates of `reduce`, which is called once for each seed and resample.

        `rows` are `[S, P]` or `[S, P, D]`; `resamples` takes only that many of the first resamples.
        `reduce_many` is `reduce` of `[R, P, D]` at once, for speed.
        """
        picks = self.picks[:resamples]
        values = np.array([reduce(of_seed) for of_seed in rows], np.float64)
        if reduce_many is None or len({len(pick) for pick in picks}) > 1:
            resampled = [[reduce(of_seed[pick]) for pick in picks] for of_seed in rows]
        else:
            parts = [np.stack(picks[i : i + 25]) for i in range(0, len(picks), 25)]
            resampled = [
                np.concatenate([reduce_many(of_seed[part]) for part in parts]).tolist()
                for of_seed in rows
            ]
        return Replicates(values, np.array(resampled, np.float64))

    def interval(self, replicates: Replicates, bounds: Bounds = None) -> Interval:
        """The interval of one arm's mean over seeds; `bounds` of the metric, cut off at them."""
        return self._interval([(1.0, replicates)], _ends(bounds))

    def difference(
        self, a: Replicates, b: Replicates, paired: bool, bounds: Bounds = None
    ) -> Interval:
        """The interval of `a` minus `b`, always paired by prompt.

        `paired`: row `s` of both comes from the same training seed, or one of them is a single
        network that was not trained in the study. Otherwise their seeds vary independently.
        `bounds` are the metric's, not the difference's.
        """
        resamples = min(a.resampled.shape[1], b.resampled.shape[1])
        a = Replicates(a.values, a.resampled[:, :resamples])
        b = Replicates(b.values, b.resampled[:, :resamples])
        least, most = _ends(bounds)
        ends = (least - most, most - least)
        groups = [(1.0, a - b)] if paired else [(1.0, a), (-1.0, b)]
        # resampled seeds go by position: in an order of their own, a - b mirrors b - a
        groups.sort(key=lambda group: group[1].values.tolist())
        return self._interval(groups, ends)

    def _interval(
        self, groups: Sequence[tuple[float, Replicates]], bounds: tuple[float, float]
    ) -> Interval:
        """The interval of a signed sum over groups whose seeds are independent of each other."""
        value = float(sum(sign * group.values.mean() for sign, group in groups))
        fixed = np.sum([sign * group.resampled.mean(0) for sign, group in groups], axis=0)
        # a variance over resamples lacks the factor that an unbiased one has
        unbiased = self.prompts / (self.prompts - 1)
        prompt_variance = fixed.var() * unbiased
        prompt_se = float(np.sqrt(prompt_variance))
        seed_parts: list[Part] = []
        for _, group in groups:
            seeds = len(group.values)
            if seeds == 1:
                continue
            # Seeds that take prompts differently put (interaction / seeds) into both the variance
            # over seeds and the one over prompts. What the resamples of single seeds vary more
            # than those of their mean says how much; it is counted once, with the seeds.
            single = group.resampled.var(axis=1).mean()
            together = group.resampled.mean(0).var()
            interaction = max(single - together, 0.0) * unbiased / (seeds - 1)
            prompt_variance = max(prompt_variance - interaction, 0.0)
            of_seeds = group.values.var(ddof=1) / seeds
            seed_parts.append((max(of_seeds, interaction), seeds - 1))
        deviations = self._crossed(groups)
        deviations = deviations - deviations.mean()
        parts = [(float(prompt_variance), self.prompts - 1), *seed_parts]
        parts = [(part, freedom) for part, freedom in parts if part > 0]
        spread = deviations.std()
        low, high, p = float("nan"), float("nan"), 1.0
        largest = max(float(np.abs(group.resampled).max()) for _, group in groups)
        if spread <= ROUNDING * largest:
            spread = 0.0
        if self.prompts < FEWEST_PROMPTS:
            pass
        elif spread > 0 and parts:
            stretch = half_width(parts, TAILS[0]) / (spread * NORMAL_QUANTILE)
            low, high = value + stretch * np.quantile(deviations, TAILS)
            p = level(value, float(low), float(high), parts)
            low, high = np.clip((low, high), *bounds)
        elif np.isfinite(spread) and np.isfinite(bounds).all():
            low, high, p = self._without_spread(value, bounds)
        seeds = min(len(group.values) for _, group in groups)
        seed_sd = None
        if len(groups) == 1 and seeds > 1:
            seed_sd = float(groups[0][1].values.std(ddof=1))
        return Interval(value, float(low), float(high), seeds, seed_sd, prompt_se, p)

    def _without_spread(self, value: float, bounds: tuple[float, float]) -> tuple[float, ...]:
        """Ends and level of the exact binomial interval of what was equal for all prompts."""
        unseen = 1 - TAILS[0] ** (1 / self.prompts)
        least, most = bounds
        low, high = value - unseen * (value - least), value + unseen * (most - value)
        if value == 0:
            return low, high, 1.0
        # zero is the end of the interval that leaves this share of prompts unseen
        share = abs(value) / (value - least if value > 0 else most - value)
        return low, high, min(1.0, 2 * (1 - share) ** self.prompts)

    def _crossed(self, groups: Sequence[tuple[float, Replicates]]) -> Array:
        """`[R]`: every resample of prompts with a resample of the seeds of every group."""
        total = np.zeros(groups[0][1].resampled.shape[1])
        for position, (sign, group) in enumerate(groups):
            seeds, resamples = group.resampled.shape
            # equal for all arms with as many seeds, different for the two sides of a difference
            generator = np.random.default_rng([self.seed, 1, seeds, position])
            chosen = generator.integers(seeds, size=(self.resamples, seeds))[:resamples]
            total += sign * group.resampled[chosen, np.arange(resamples)[:, None]].mean(1)
        return total


def _ends(bounds: Bounds) -> tuple[float, float]:
    low, high = bounds or (None, None)
    return -math.inf if low is None else low, math.inf if high is None else high


def half_width(parts: Sequence[Part], tail: float) -> float:
    """Half of an interval that leaves out `tail` on each side, of a sum of independent estimates:
    `sqrt(sum((t_{freedom, tail} * standard error)^2))`, MOVER of symmetric intervals.

    >>> round(half_width([(1.0, 1)], 0.025), 3), round(half_width([(1.0, 4), (1.0, 31)], 0.025), 3)
    (12.706, 3.446)
    """
    squares = (part * float(stdtrit(freedom, tail)) ** 2 for part, freedom in parts)
    return math.sqrt(sum(squares))


def level(value: float, low: float, high: float, parts: Sequence[Part]) -> float:
    """The two-sided level at which a 95% interval of these parts would touch zero."""
    reach = value - low if value > 0 else high - value
    if value == 0 or not reach > 0:
        return 1.0 if not abs(value) > 0 else 0.0
    wanted = half_width(parts, TAILS[0]) * abs(value) / reach

    def excess(exponent: float) -> float:
        return half_width(parts, math.exp(exponent)) - wanted

    if excess(SMALLEST) < 0:
        return 0.0
    p = 2 * math.exp(brentq(excess, SMALLEST, math.log(0.5), xtol=1e-9))
    # the interval decides, also where the root is not exact
    return min(p, LARGEST_SIGNIFICANT) if abs(value) > reach else max(p, 2 * TAILS[0])


def holm(levels: Sequence[float]) -> list[float]:
    """Levels adjusted for their number: if all below 0.05 are called significant, the chance that
    any of them is wrong is at most 5%.

    Of n levels in rising order the i-th, from 1, becomes `max_{j <= i} min(1, (n - j + 1) p_j)`
    (Holm, Scandinavian Journal of Statistics 6, 1979, 65-70).

    >>> holm([0.01, 0.04, 0.02])
    [0.03, 0.04, 0.04]
    """
    order = sorted(range(len(levels)), key=lambda index: levels[index])
    adjusted, most = [1.0] * len(levels), 0.0
    for rank, index in enumerate(order):
        most = max(most, min(1.0, (len(levels) - rank) * levels[index]))
        adjusted[index] = most
    return adjusted
