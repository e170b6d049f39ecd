"""The digits' measures: exact on real videos, and sensitive to what they are for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salt_zoo.config.metrics import make_metrics
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.evaluation.videos import Videos
from salt_zoo.plugin.manager import load_zoo
from salt_zoo_digits import measures
from salt_zoo_digits.data import COMMANDS, Digits
from salt_zoo_digits.frechet import Gaussian, frechet_distance, frechet_distances
from salt_zoo_digits.judge import judge_video, shipped_judge
from salt_zoo_digits.reference import Features, Reference, real_videos, shipped_reference


@pytest.fixture(scope="module")
def real():
    prompts = [str(command) for command in COMMANDS]
    return Digits().real(prompts, KeyedRNG(0, (), range(160)), "test"), prompts


def test_real_videos_score_perfectly(real):
    videos, prompts = real
    assert measures.motion_correct(videos, prompts).min() == 1
    assert measures.rigidity_error(videos, prompts).max() < 1e-6
    assert measures.centroid_error(videos, prompts).max() < 1e-4
    assert torch.allclose(measures.displacement_ratio(videos, prompts), torch.ones(160), atol=1e-5)
    assert measures.flicker(videos).max() < 1e-5


@pytest.fixture(scope="module")
def long_real():
    prompts = [str(command) for command in COMMANDS]
    return Digits().real(prompts, KeyedRNG(0, (), range(160)), "test", frames=49), prompts


@pytest.mark.parametrize("frames", [9, 14])
def test_clips_of_long_real_videos_are_perfect(long_real, frames):
    videos, prompts = long_real
    last = videos.shape[2] - frames
    for first in (*range(0, last, 5), last):  # paths repeat every 4 or 8 frames: at each phase
        clip = videos[:, :, first : first + frames]
        assert measures.motion_correct(clip, prompts, first).min() == 1
        assert measures.rigidity_error(clip, prompts, first).max() < 1e-6
        assert measures.centroid_error(clip, prompts, first).max() < 1e-4
        ratio = measures.displacement_ratio(clip, prompts, first)
        assert torch.allclose(ratio, torch.ones(160), atol=1e-5)


def test_a_clip_is_measured_where_it_lies(long_real):
    """The truth of a clip is that of its own frames, not of the video's first ones."""
    videos, prompts = long_real
    clip = videos[:, :, 5:14]
    assert measures.motion_correct(clip, prompts, 0).mean() < 0.6
    assert measures.rigidity_error(clip, prompts, 0).mean() > 0.05


def test_a_long_video_begins_as_a_short_one_and_is_measured_so(real, long_real):
    videos, prompts = real
    start = long_real[0][:, :, :9]
    assert torch.equal(start, videos)
    zoo = load_zoo()
    names = [entry.name for entry in zoo.metrics if entry.name.startswith("digits-")]
    some = KeyedRNG(0, (), range(40))
    short = Videos(videos[:40], prompts[:40], some, Digits())
    clip = Videos(start[:40], prompts[:40], some, Digits(), first_frame=0)
    for metric in make_metrics(zoo, names).values():
        assert torch.equal(metric.measure(short).nan_to_num(), metric.measure(clip).nan_to_num())


def test_metrics_take_the_first_frame_of_a_clip(long_real):
    videos, prompts = long_real
    metrics = make_metrics(load_zoo(), ["digits-rigidity", "digits-motion", "digits-fd"])
    rng = KeyedRNG(0, (), range(160))
    clip = Videos(videos[:, :, 15:24], prompts, rng, Digits(), first_frame=15)
    found = {name: metric.reduce(metric.measure(clip)) for name, metric in metrics.items()}
    assert found["digits-rigidity"] < 1e-6 and found["digits-motion"] == 1
    assert found["digits-fd"] < 1.5


def test_a_video_of_another_command_is_found_out(real):
    videos, prompts = real
    wrong = prompts[1:] + prompts[:1]  # neighbours differ in speed or direction
    assert measures.motion_correct(videos, wrong).max() == 0
    assert measures.rigidity_error(videos, wrong).min() > 0.05


def test_rigidity_is_the_share_of_what_does_not_belong(real):
    videos, prompts = real
    speck = videos.clone()
    speck[:, :, 0, 0, 0] += 3.0
    speck[:, :, 0, -1, -1] += 3.0  # one of the two corners lies outside any single box
    error = measures.rigidity_error(speck, prompts)
    assert (error > 0.01).all()
    assert torch.allclose(error, measures.rigidity_error(2 * speck, prompts), atol=1e-5)


def test_a_still_or_empty_video_has_no_motion(real):
    videos, prompts = real
    still = videos[:, :, :1].expand_as(videos)
    assert measures.displacement_ratio(still, prompts).max() < 1e-6
    empty = torch.zeros_like(videos)
    for scores in (measures.rigidity_error(empty, prompts), measures.flicker(empty)):
        assert torch.isfinite(scores).all()


def test_flicker_and_sharpness_follow_brightness_and_blur(real):
    videos, _ = real
    blinking = videos * torch.tensor([1.0, 0.5] * 4 + [1.0]).view(1, 1, 9, 1, 1)
    assert measures.flicker(blinking).min() > 0.5
    blurred = torch.nn.functional.avg_pool3d(videos, (1, 3, 3), 1, (0, 1, 1))
    ratio = measures.laplacian_energy(blurred) / measures.laplacian_energy(videos)
    assert ratio.max() < 0.2


def test_a_video_that_is_not_finite_spoils_no_other_prompt(real):
    videos, prompts = real
    pairs, names = torch.cat([videos, 0 * videos]), prompts * 2
    whole = measures.distance_within_prompt(pairs, names)
    pairs[0] = float("nan")
    found = measures.distance_within_prompt(pairs, names)
    other = torch.tensor([name != names[0] for name in names])
    assert found[~other].isnan().all() and torch.equal(found[other], whole[other])


def test_distance_within_prompt_sees_equal_videos(real):
    videos, prompts = real
    alone = measures.distance_within_prompt(videos, prompts)
    assert torch.isnan(alone).all()
    pairs = measures.distance_within_prompt(torch.cat([videos, videos]), prompts * 2)
    assert pairs.max() < 1e-3
    apart = measures.distance_within_prompt(torch.cat([videos, 0 * videos]), prompts * 2)
    wanted = videos.square().flatten(1).mean(1).sqrt()
    assert torch.allclose(apart[:160], wanted, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form(seed, size):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(size, generator=generator).double() for _ in range(2))
    s, r = (0.1 + torch.rand(size, generator=generator).double() for _ in range(2))
    first = Gaussian(a, torch.diag(s**2), torch.diag(s))
    second = Gaussian(b, torch.diag(r**2), torch.diag(r))
    wanted = ((a - b) ** 2).sum() + ((s - r) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(float(wanted), rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_many_frechet_distances_are_the_single_ones():
    generator = torch.Generator().manual_seed(0)
    real = Gaussian.of(torch.randn(50, 6, generator=generator))
    rows = 1 + 2 * torch.randn(4, 20, 6, generator=generator)
    wanted = [frechet_distance(real, Gaussian.of(some)) for some in rows]
    assert frechet_distances(real, rows).tolist() == pytest.approx(wanted, rel=1e-10)


def test_every_registered_metric_scores_real_videos(real):
    """Held-out real videos are the yardstick of every metric: near the best value there is."""
    videos, prompts = real
    zoo = load_zoo()
    names = [entry.name for entry in zoo.metrics if entry.name.startswith("digits-")]
    metrics = make_metrics(zoo, names)
    double = Digits().real(prompts, KeyedRNG(1, (), range(160)), "test")
    shown = Videos(torch.cat([videos, double]), prompts * 2, KeyedRNG(0, (), range(320)), Digits())
    found = {name: metric.reduce(metric.measure(shown)) for name, metric in metrics.items()}
    assert found["digits-class"] > 0.97 and found["digits-consistency"] > 0.97
    assert found["digits-fd"] < 1.5 and found["digits-fd-motion"] < 0.3
    assert found["digits-sharpness"] == pytest.approx(1, abs=0.1)
    assert found["digits-diversity"] == pytest.approx(1, abs=0.1)
    assert found["digits-sharpness-error"] == pytest.approx(abs(1 - found["digits-sharpness"]))


def test_the_shipped_reference_is_that_of_real_videos():
    found, wanted = shipped_reference(), Reference.of(*real_videos(), shipped_judge())

    def tensors(features: Features) -> tuple[torch.Tensor, ...]:
        return features.scale, features.gaussian.mean, features.gaussian.covariance

    # another processor's convolutions round otherwise
    for one, other in ((found.appearance, wanted.appearance), (found.motion, wanted.motion)):
        for a, b in zip(tensors(one), tensors(other), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.laplacian_energy, wanted.laplacian_energy)
    torch.testing.assert_close(found.distance_within_prompt, wanted.distance_within_prompt)


def test_judging_in_parts_is_judging_at_once(real):
    videos, _ = real
    judge = shipped_judge()
    features, probabilities = judge_video(judge, videos)
    whole, logits = judge(videos.clamp(0, 1).transpose(1, 2).flatten(0, 1))
    torch.testing.assert_close(features, whole.unflatten(0, (len(videos), -1)))
    torch.testing.assert_close(probabilities, logits.softmax(-1).unflatten(0, (len(videos), -1)))
