"""The metrics of any videos that need no library: values known in closed form."""

from __future__ import annotations

import pytest
import torch

from salt_zoo.config.metrics import make_metrics
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.evaluation.videos import Videos
from salt_zoo_metrics.change import motion_magnitude, temporal_flickering
from salt_zoo_metrics.frames import eight_bit, rgb, spread
from salt_zoo_metrics.saturation import saturation

PURE = ["temporal-flickering", "motion-magnitude", "saturation"]


def steps(*values: float, channels: int = 3) -> torch.Tensor:
    """One video `[1, channels, F, 4, 6]` whose frames have one value each."""
    return torch.tensor(values).view(1, 1, -1, 1, 1).expand(1, channels, -1, 4, 6).clone()


def videos(pixels: torch.Tensor) -> Videos:
    count = len(pixels)
    return Videos(pixels, ["a cat"] * count, KeyedRNG(0, (), range(count)), None)  # type: ignore[arg-type]


def test_a_still_video_neither_flickers_nor_moves():
    still = torch.rand(2, 3, 1, 4, 6).expand(-1, -1, 5, -1, -1)
    assert temporal_flickering(still).tolist() == [1, 1]
    assert motion_magnitude(still).tolist() == [0, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_blinking_video_flickers_as_much_as_can_be(channels):
    blinking = steps(0, 1, 0, 1, channels=channels)
    assert temporal_flickering(blinking).tolist() == [0]
    assert motion_magnitude(blinking).tolist() == [1]
    assert motion_magnitude(blinking, gap=2).tolist() == [0]


def test_known_differences():
    # 0, 26, 51 of 255 after rounding: 25.5 is halfway, and goes to the even 26
    video = steps(0, 0.1, 0.2)
    assert eight_bit(video)[0, 0, :, 0, 0].tolist() == [0, 26, 51]
    assert temporal_flickering(video).item() == pytest.approx(1 - 51 / 2 / 255)
    assert motion_magnitude(video).item() == pytest.approx(0.1)
    assert motion_magnitude(video, gap=2).item() == pytest.approx(0.2)


def test_what_a_file_cannot_hold_is_no_change():
    assert temporal_flickering(steps(1.0, 1.7, 1.0, 3.0)).tolist() == [1]
    assert temporal_flickering(steps(0.5, 0.5003)).tolist() == [1]
    assert motion_magnitude(steps(0.0, -2.0)).tolist() == [0]


def test_the_two_readings_of_change_agree_up_to_8_bits():
    noise = torch.rand(3, 3, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(1 - temporal_flickering(noise), motion_magnitude(noise), atol=1 / 255)


def test_saturation_counts_values_outside_the_band():
    assert saturation(steps(0.02, 0.5, 0.98)).tolist() == [0]
    assert saturation(steps(0.0, 0.5, 0.99, 1.5)).tolist() == [0.75]
    one_channel = steps(0.5)
    one_channel[:, 0] = -0.1
    assert saturation(one_channel).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", PURE)
def test_one_row_a_video_and_nan_for_what_is_broken(name, zoo):
    metric = make_metrics(zoo, [name])[name]
    pixels = torch.rand(3, 3, 5, 4, 6)
    pixels[1, 0, 2, 1, 1] = torch.nan
    rows = metric.measure(videos(pixels))
    assert rows.shape == (3,) and rows.isnan().tolist() == [False, True, False]
    assert metric.own_steps is None and metric.direction in ("higher", "none")
    assert metric.reduce(torch.tensor([1.0, 3.0])) == 2


def test_one_frame_has_no_neighbour():
    assert temporal_flickering(steps(0.3)).isnan().all()
    assert motion_magnitude(steps(0.3)).isnan().all()
    assert motion_magnitude(steps(0.3, 0.4), gap=7).isnan().all()


@pytest.mark.parametrize(
    ("frames", "count", "found"),
    [
        (9, 3, [0, 4, 8]),
        (9, 1, [4]),
        (81, 8, [0, 11, 23, 34, 46, 57, 69, 80]),
        (3, 8, [0, 1, 2]),
        (3, None, [0, 1, 2]),
    ],
)
def test_frames_are_spread_from_the_first_to_the_last(frames, count, found):
    assert spread(frames, count).tolist() == found


def test_grey_is_repeated():
    grey, colour = torch.rand(1, 2, 4, 6), torch.rand(3, 2, 4, 6)
    assert torch.equal(rgb(grey), grey[0][:, None].repeat(1, 3, 1, 1))
    assert torch.equal(rgb(colour)[1, 2], colour[2, 1])
