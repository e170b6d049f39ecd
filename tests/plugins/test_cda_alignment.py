"""The alignment losses of CDA, against slow loops, closed forms and their defining properties."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salt_zoo_cda.alignment import Kernel, mmd, trd, x0

VIDEOS, FRAMES, TOKENS, CHANNELS = 2, 3, 4, 5
KERNELS = get_args(Kernel)
PAIRWISE = [kernel for kernel in KERNELS if kernel != "linear"]
SIZES = [(VIDEOS, FRAMES, TOKENS, CHANNELS), (1, 2, 20, 3)]  # torch.cdist changes at 26 tokens
seeds = st.integers(0, 2**16)
#: Of a property: random features are as good as others.
few = settings(max_examples=25)


def features(seed, size=SIZES[0], dtype=torch.float64):
    videos, frames, tokens, channels = size
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(videos, frames * tokens, channels, generator=generator, dtype=dtype)


def losses(frames=FRAMES):
    """Every loss of features as a function of student and reference."""
    found = {f"trd {m}": lambda x, y, m=m: trd(x, y, frames, m) for m in (0.0, 0.1)}
    found |= {k: lambda x, y, k=k: mmd(x, y, frames, k, sigma=2.0) for k in KERNELS}
    return found | {"x0": x0}


LOSSES = losses()


def cosine(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
def test_trd_is_the_loop(margin):
    x, y = features(0), features(1)
    total = []
    for student, reference in zip(x.tolist(), y.tolist(), strict=True):
        for frame in range(FRAMES):
            here = range(frame * TOKENS, (frame + 1) * TOKENS)
            for i, j in itertools.product(here, here):
                difference = cosine(student[i], student[j]) - cosine(reference[i], reference[j])
                total.append(max(abs(difference) - margin, 0.0))
    found = trd(x, y, FRAMES, margin).item()
    assert found == pytest.approx(sum(total) / len(total), rel=1e-12)
    assert found > 0


@pytest.mark.parametrize("size", SIZES)
def test_linear_is_the_loop(size):
    x, y = features(0, size), features(1, size)
    videos, frames, tokens, channels = size
    total = 0.0
    for video in range(videos):
        for channel in range(channels):
            d = sum((x - y)[video, :, channel].tolist()) / (frames * tokens)
            total += math.sqrt(d * d + 1e-6) - 1e-3
    assert mmd(x, y, frames).item() == pytest.approx(total / videos / channels, rel=1e-10)


def similarity(a, b, kernel, sigma):
    distance = math.dist(a, b)
    if kernel == "rbf":
        return math.exp(-(distance**2) / (2 * sigma**2))
    return math.exp(-distance / sigma) if kernel == "laplace" else -distance


def estimator(x, y, kernel, sigma):
    """Of two lists of points: all pairs between them, and all of different points within each."""

    def mean(pairs):
        values = [similarity(a, b, kernel, sigma) for a, b in pairs]
        return sum(values) / len(values)

    within = mean(itertools.permutations(x, 2)) + mean(itertools.permutations(y, 2))
    return within - 2 * mean(itertools.product(x, y))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [0.7, 100.0])
@pytest.mark.parametrize("kernel", PAIRWISE)
def test_mmd_is_the_loop(kernel, sigma, size):
    x, y = features(0, size), features(1, size) + 0.5
    wanted = []
    for student, reference in zip(x, y, strict=True):
        points = [student, reference]
        if kernel.startswith("temporal"):
            points = [z.view(size[1], size[2], -1).mean(1) for z in points]
        wanted.append(
            estimator(*(z.tolist() for z in points), kernel.removeprefix("temporal_"), sigma)
        )
    found = mmd(x, y, size[1], kernel, sigma).item()
    assert found == pytest.approx(sum(wanted) / len(wanted), rel=1e-9, abs=1e-12)


def test_energy_of_two_pairs_on_a_line():
    x, y = (torch.tensor(points, dtype=torch.float64)[None, :, None] for points in ([0, 1], [3, 7]))
    # 2 E|x - y| - E|x - x'| - E|y - y'| = 2 (3 + 7 + 2 + 6) / 4 - 1 - 4
    assert mmd(x, y, 2, "energy").item() == pytest.approx(4.0)


@settings(max_examples=20)
@given(seed=seeds)
@pytest.mark.parametrize("kernel", ["rbf", "laplace", "energy"])
def test_pairwise_mmd_is_unbiased(kernel, seed):
    """Over all samples of m from one set of n points and m from another, drawn without replacement.

    The mean over all of them is the estimator of the whole sets: pairs of different points are
    equally frequent in the samples. A bias (the diagonal, say) would depend on m.
    """
    size = (1, 1, 4, 2)
    x, y = features(seed, size), features(seed + 1, size) + 1
    for m in (2, 3):
        samples = [list(s) for s in itertools.combinations(range(4), m)]
        values = [mmd(x[:, a], y[:, b], 1, kernel, 1.5) for a in samples for b in samples]
        torch.testing.assert_close(torch.stack(values).mean(), mmd(x, y, 1, kernel, 1.5))


@settings(max_examples=20)
@given(seed=seeds)
@pytest.mark.parametrize("kernel", ["rbf", "laplace", "energy"])
def test_pairwise_mmd_of_a_split_has_mean_zero(kernel, seed):
    """Over all splits of one set into two halves, as both halves are of one distribution."""
    points = features(seed, (1, 1, 6, 3))
    values = []
    for half in itertools.combinations(range(6), 3):
        rest = [i for i in range(6) if i not in half]
        values.append(mmd(points[:, list(half)], points[:, rest], 1, kernel, 1.5))
    assert abs(torch.stack(values).mean().item()) < 1e-12
    assert max(values) > 1e-4


def test_rbf_of_gaussians_is_the_closed_form():
    """Of N(m, 1) and N(n, 1): E k = (s^2 / (s^2 + 2))^(D/2) exp(-|m - n|^2 / (2 (s^2 + 2)))."""
    size, sigma = (400, 1, 12, 3), 1.5
    x, y = features(0, size), features(1, size) + 2
    scale = (sigma**2 / (sigma**2 + 2)) ** (3 / 2)
    wanted = 2 * scale * (1 - math.exp(-3 * 2**2 / (2 * (sigma**2 + 2))))
    each = [mmd(a[None], b[None], 1, "rbf", sigma).item() for a, b in zip(x, y, strict=True)]
    error = torch.tensor(each).std().item() / math.sqrt(len(each))
    assert abs(sum(each) / len(each) - wanted) < 3 * error < 0.1 * wanted


@few
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
@pytest.mark.parametrize("name", ["trd 0.0", "trd 0.1", "linear", "x0"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_when_equal(name, dtype, seed, scale):
    x = (scale * features(seed)).to(dtype).requires_grad_()
    loss = LOSSES[name](x, x)
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.any()


@few
@given(seed=seeds)
def test_ranges(seed):
    x, y = features(seed), features(seed + 1)
    assert 0 <= trd(x, y, FRAMES) <= 1.9
    assert trd(x, y, FRAMES, margin=2.0) == 0
    assert mmd(x, y, FRAMES) >= 0
    for kernel in set(PAIRWISE) - {"energy", "temporal_energy"}:
        assert -2 <= mmd(x, y, FRAMES, kernel, sigma=0.1) <= 2


@few
@given(seed=seeds, order=st.permutations(range(FRAMES * TOKENS)))
@pytest.mark.parametrize("kernel", ["linear", "rbf", "laplace", "energy"])
def test_mmd_does_not_depend_on_the_order_of_tokens(kernel, order, seed):
    x, y = features(seed), features(seed + 1)
    torch.testing.assert_close(mmd(x[:, order], y, FRAMES, kernel), mmd(x, y, FRAMES, kernel))


@few
@given(seed=seeds, order=st.permutations(range(FRAMES)), inner=st.permutations(range(TOKENS)))
@pytest.mark.parametrize("kernel", [k for k in KERNELS if k.startswith("temporal")])
def test_temporal_mmd_depends_on_neither_the_order_of_frames_nor_within(kernel, order, inner, seed):
    x, y = features(seed), features(seed + 1)
    moved = x.view(VIDEOS, FRAMES, TOKENS, -1)[:, order][:, :, inner].flatten(1, 2)
    torch.testing.assert_close(mmd(moved, y, FRAMES, kernel), mmd(x, y, FRAMES, kernel))
    across = x[:, [*range(1, FRAMES * TOKENS), 0]]  # tokens that change their frame
    assert mmd(across, y, FRAMES, kernel, 2.0) != mmd(x, y, FRAMES, kernel, 2.0)


@few
@given(seed=seeds, lengths=st.lists(st.floats(0.1, 10), min_size=12, max_size=12))
def test_trd_sees_directions_and_one_order_of_both(seed, lengths):
    x, y = features(seed), features(seed + 1)
    longer = x * torch.tensor(lengths, dtype=x.dtype)[:, None]
    torch.testing.assert_close(trd(longer, y, FRAMES), trd(x, y, FRAMES))
    order = [3, 1, 0, 2, *range(4, 12)]
    torch.testing.assert_close(trd(x[:, order], y[:, order], FRAMES), trd(x, y, FRAMES))


@settings(max_examples=30)
@given(seed=seeds)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_values(name, size, seed):
    x, y = features(seed, size).requires_grad_(), features(seed + 1, size)
    loss = losses(size[1])[name]
    # kinks of trd (at the margin) and of nothing else here are within reach of a difference of 1e-7
    assert torch.autograd.gradcheck(loss, (x, y), eps=1e-7, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", ["equal", "all alike", "one pair", "zero token", "zeros", "tiny"])
def test_gradients_are_finite_and_of_moderate_size(case, size, dtype):
    y = features(1, size, dtype)
    x = y.clone()
    if case == "all alike":
        x[:] = x[:, :1].clone()
    elif case == "one pair":
        x = features(2, size, dtype)
        x[:, 1] = x[:, 0]
        x[:, 2] = y[:, 2]
    elif case == "zero token":
        x[:, 0] = 0
    elif case == "zeros":
        x = torch.zeros_like(x)
    elif case == "tiny":
        x[:, 0] *= 1e-30
    for name, loss_of in losses(size[1]).items():
        given = x.clone().requires_grad_()
        loss = loss_of(given, y)
        loss.backward()
        assert loss.isfinite(), name
        assert given.grad.isfinite().all(), name
        assert given.grad.abs().max() < 10, name


@pytest.mark.parametrize("kernel", ["laplace", "energy"])
def test_a_coinciding_pair_contributes_nothing(kernel):
    """One token on the reference's: its gradient is that of the other pairs alone."""
    x, y = features(0, (1, 1, 2, 3)), features(1, (1, 1, 2, 3))
    x[:, 0] = y[:, 0]
    x.requires_grad_()
    mmd(x, y, 1, kernel, 1.0).backward()

    def pull(a, b, weight):  # the gradient in a of weight * similarity
        d = a - b
        slope = -torch.exp(-d.norm()) if kernel == "laplace" else -1.0
        return weight * slope * d / d.norm()

    a, b = x[0].detach()
    wanted = pull(a, b, 1.0) - pull(a, y[0, 1], 0.5)
    torch.testing.assert_close(x.grad[0, 0], wanted)


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_into_the_reference(name):
    x, y = features(0).requires_grad_(), features(1).requires_grad_()
    LOSSES[name](x, y).backward()
    assert x.grad.any()
    assert y.grad is None


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name):
    x, y = features(0, dtype=torch.float32), features(1, dtype=torch.float32)
    half = LOSSES[name](x.bfloat16(), y.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, LOSSES[name](x.bfloat16().float(), y.bfloat16().float()))


@pytest.mark.parametrize("kernel", PAIRWISE)
def test_float32_survives_wide_kernels_and_common_offsets(kernel):
    size = (1, 4, 10, 8)
    x, y = features(0, size), features(1, size) + 0.5
    x[..., 0] += 1000
    y[..., 0] += 1000
    x, y = x.float(), y.float()
    wanted = mmd(x.double(), y.double(), 4, kernel, 100.0)
    torch.testing.assert_close(mmd(x, y, 4, kernel, 100.0).double(), wanted, rtol=1e-5, atol=0)


def test_x0_is_the_mean_squared_error_of_videos():
    x, y = torch.zeros(2, 3, 4, 5, 6), torch.full((2, 3, 4, 5, 6), 3.0)
    assert x0(x, y) == 9


@pytest.mark.parametrize(
    ("shape", "other", "frames"),
    [
        ((2, 12, 5), (2, 12, 4), 3),
        ((2, 12, 5), (1, 12, 5), 3),
        ((2, 12, 5), (2, 12, 5), 5),
        ((2, 12, 5), (2, 12, 5), 0),
        ((2, 3, 4, 5), (2, 3, 4, 5), 3),
        ((2, 0, 5), (2, 0, 5), 3),
    ],
)
def test_wrong_shapes_are_named(shape, other, frames):
    x, y = torch.zeros(shape), torch.zeros(other)
    for loss in (trd, mmd):
        with pytest.raises(ValueError, match=r"\[2, "):
            loss(x, y, frames)
    if shape != other:
        with pytest.raises(ValueError, match="differ in shape"):
            x0(x, y)


def test_wrong_kernels_and_lone_points_are_named():
    x = features(0)
    with pytest.raises(ValueError, match="no kernel 'gauss'; known: linear, rbf"):
        mmd(x, x, FRAMES, "gauss")
    with pytest.raises(ValueError, match="temporal_rbf compares pairs"):
        mmd(x, x, 1, "temporal_rbf")
    assert mmd(x, x, 1, "rbf").isfinite()
