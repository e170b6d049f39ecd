"""`salt-zoo stream`: video as it is made, with prompts that change, until Ctrl-C."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_zoo.cli import first_image
from salt_zoo.cli.chosen import choose, with_overrides
from salt_zoo.cli.outputs import out_path
from salt_zoo.cli.sample import add_common_arguments, sampling_config
from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo.io.files.storage import check_file
from salt_zoo.io.printing import show
from salt_zoo.io.signals import exit_code
from salt_zoo.plugin.manager import Zoo

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from salt_zoo.rollout.stream import Stream, Timeline

NAME = "stream"
HELP = "generate video block by block with an autoregressive student, optionally without end"

#: A longer stream is one without end.
MOST_FRAMES = 10**8

_FORM = '--switch 40:"a 7 moving left quickly"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="the first prompt")
    parser.add_argument(
        "--out",
        type=out_path,
        required=True,
        help=".mp4, or, for a given length, .gif or .png (a strip of frames)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--frames", type=int, help="length in frames (default: until Ctrl-C)")
    length.add_argument("--seconds", type=float, help="length in seconds")
    parser.add_argument(
        "--switch",
        action="append",
        default=[],
        metavar="FRAME:PROMPT",
        dest="switches",
        help="change the prompt at the block that contains FRAME (0-based); repeatable, once per "
        "block",
    )
    parser.add_argument(
        "--backbone", help="backbone whose initial student is used without --checkpoint"
    )
    parser.add_argument(
        "--memory",
        help="name of a memory, e.g. window (default: the checkpoint's own); its options: "
        "--set backbone.memory.frames=6",
    )
    parser.add_argument("--nfe", type=int, help="denoising steps per block (default: 4)")
    parser.add_argument("--sampler", choices=("sde", "ode"), help="default: sde")
    parser.add_argument("--guidance", type=float, help="guidance scale (default: 1, no guidance)")
    add_common_arguments(parser)


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    switches = read_switches(options.switches)
    check_length(options)
    chosen = choose(options, zoo, "stream", "student")
    content = with_memory(chosen.content, options.memory, zoo)
    content = with_overrides(content, options.overrides, zoo)

    from salt_zoo.config.parts import configure_part
    from salt_zoo.core.methods.attention import attention_use, check_attention, choose_attention
    from salt_zoo.core.networks.precision import with_precision
    from salt_zoo.io.videos.video import check_size
    from salt_zoo.rollout.generate import prompt_draws
    from salt_zoo.rollout.stream import Timeline, stream
    from salt_zoo.training.devices import find_device  # torch takes seconds to import

    device = find_device(options.device)
    config = configure_part(zoo.backbones, content, zoo, chosen.where)
    backbone = zoo.backbones.create(content["name"], config, zoo).to(device)
    images = first_image.first_frames(options, backbone, content.get("size"))
    timeline = Timeline.of(backbone)
    check_switches(switches, timeline)
    sampling = sampling_config(options, chosen, True, backbone)
    frames = length_in_frames(options, backbone.frame_rate)
    if frames is not None and switches and max(switches) >= frames:
        raise ZooError(f"--switch {max(switches)}: past the end; the last frame is {frames - 1}")
    if size := backbone.frame_size:
        check_size(options.out, 1, *size)
    use = attention_use(options.precision, device, backward=False)
    attention = options.attention, f"--attention {options.attention}", use
    check_attention(backbone, *attention)
    network = backbone.load(chosen.place) if chosen.place else backbone.network("student")
    with_precision(network, options.precision, device, frozen=True)
    choose_attention(network, *attention)
    made = stream(
        network.eval(),
        backbone,
        options.prompt,
        prompt_draws(options.seed, options.prompt, range(1), device),
        sampling,
        switches=switches,
        blocks=None if frames is None else timeline.count(frames),
        first_frames=images,
    )
    done, interrupted = write(options.out, made, frames, backbone.frame_rate)
    show(options.out)
    show(report(made, done, backbone.frame_rate, options.seed))
    if interrupted and frames is not None:
        show(f"interrupted: {done} of {frames} frames were made and are kept")
        return exit_code(interrupted)
    return 0


def read_switches(texts: list[str]) -> dict[int, str]:
    """Prompts by the frame at which they begin."""
    switches: dict[int, str] = {}
    for text in texts:
        frame, colon, prompt = text.partition(":")
        frame = frame.strip()
        if not (colon and frame.isascii() and frame.isdecimal() and prompt.strip()):
            raise ZooError(f"--switch {shown(text)}: write FRAME:PROMPT, for instance {_FORM}")
        if len(frame) > len(str(MOST_FRAMES)):
            raise ZooError(f"--switch {shown(text)}: a stream has at most {MOST_FRAMES:,} frames")
        if int(frame) in switches:
            raise ZooError(f"--switch {shown(text)}: frame {int(frame)} has a prompt already")
        switches[int(frame)] = prompt.strip()
    return switches


def check_switches(switches: dict[int, str], timeline: Timeline) -> None:
    """Refuse a second prompt for one block, of which the first would not be heard."""
    blocks: dict[int, int] = {}
    for frame in sorted(switches):
        block = timeline.count(frame + 1) - 1
        if block in blocks:
            first, end = timeline.pixels(block), timeline.pixels(block + 1)
            raise ZooError(
                f"--switch {blocks[block]} and --switch {frame}: both lie in the block of frames "
                f"{first} to {end - 1}, which has one prompt; give one of them, or a later frame"
            )
        blocks[block] = frame


def check_length(options: argparse.Namespace) -> None:
    """The ending of the file, a length that it can hold, and a place where it can be written."""
    ending = options.out.suffix.lower()
    if ending not in (".mp4", ".gif", ".png"):
        raise ZooError(f"--out {options.out}: use a name that ends in .mp4, .gif or .png")
    if options.frames is not None and options.frames < 1:
        raise ZooError(f"--frames {options.frames}: must be at least 1")
    if options.frames is not None and options.frames > MOST_FRAMES:
        raise ZooError(f"--frames: at most {MOST_FRAMES:,}; omit it to stream until Ctrl-C")
    if options.seconds is not None and not (0 < options.seconds < math.inf):
        raise ZooError(f"--seconds {options.seconds}: must be a number above 0")
    if ending != ".mp4" and options.frames is None and options.seconds is None:
        raise ZooError(
            f"--out {options.out}: only .mp4 can grow without end; give --frames N or --seconds S"
        )
    check_file(options.out)


def length_in_frames(options: argparse.Namespace, frame_rate: float) -> int | None:
    if options.seconds is not None:
        if options.seconds * frame_rate > MOST_FRAMES:
            raise ZooError(
                f"--seconds {options.seconds:g}: at most {MOST_FRAMES / frame_rate:g} (they are "
                f"{MOST_FRAMES:,} frames); omit it to stream until Ctrl-C"
            )
        return max(1, round(options.seconds * frame_rate))
    frames: int | None = options.frames
    return frames


def with_memory(content: dict[str, Any], name: str | None, zoo: Zoo) -> dict[str, Any]:
    """The backbone with the memory `name`; options stay only if it is the memory they are of."""
    if name is None:
        return content
    if "memory" not in zoo.backbones[content["name"]].options_model().model_fields:
        raise ZooError(
            f"--memory {name}: the backbone {content['name']!r} has none, because it is not "
            "autoregressive; stream with the backbone self-forcing"
        )
    if name.lstrip().startswith(("{", "[")) or ":" in name or "=" in name:
        raise ZooError(
            f"--memory {name}: takes a memory's name; its options are set beside it, as in "
            "--memory window --set backbone.memory.frames=6"
        )
    old = content.get("memory")
    same = isinstance(old, dict) and old.get("name") == name
    return content | {"memory": old if same else {"name": name}}


def write(
    path: Path, made: Stream, frames: int | None, frame_rate: float
) -> tuple[int, KeyboardInterrupt | None]:
    """Write a stream to a file as it is made, and cut it after `frames` frames.

    Returns how many there are in the file, and the interrupt that has ended it.
    """
    from salt_zoo.cli.progress import stream_progress
    from salt_zoo.io.signals import graceful_shutdown

    done = 0
    interrupted: KeyboardInterrupt | None = None
    broken: ZooError | None = None
    with graceful_shutdown() as stopped, writer(path, frame_rate) as add:
        try:
            with stream_progress(frames) as progress:
                for pixels in made:
                    pixels = pixels[:, :, : None if frames is None else frames - done]
                    if broken := _not_finite(pixels, path, done):
                        break
                    add(pixels)
                    done += pixels.shape[2]
                    progress(done, made.statistics.whole_rate)
                    if done != frames and (interrupted := stopped()):
                        break
        except KeyboardInterrupt as error:  # the second one, which does not wait for the block
            if not done:
                raise
            interrupted = error
        if broken and not done:
            raise broken
    if broken:  # what was made before it is kept
        raise broken
    return done, interrupted


def _not_finite(pixels: Tensor, path: Path, done: int) -> ZooError | None:
    from salt_zoo.io.videos.video import check_finite

    try:
        check_finite(pixels, f"{path}, from frame {done} on")
    except ZooError as error:
        return error
    return None


@contextmanager
def writer(path: Path, frame_rate: float) -> Iterator[Callable[[Tensor], None]]:
    """Yields what takes the next pixels `[1, C, f, H, W]`; the file has its name at the end."""
    import torch

    from salt_zoo.io.files.storage import atomic_file
    from salt_zoo.io.videos.video import Mp4, enlarge, side_by_side, to_bytes, write_videos

    if path.suffix.lower() == ".mp4":
        with atomic_file(path) as draft, Mp4(str(draft), frame_rate) as file:
            yield lambda pixels: file.add(side_by_side(enlarge(to_bytes(pixels))))
    else:
        parts: list[Tensor] = []
        yield parts.append
        write_videos(path, torch.cat(parts, dim=2), frame_rate)


def report(made: Stream, frames: int, frame_rate: float, seed: int) -> str:
    """What it was and what it took, in a few lines."""
    costs = made.statistics
    return "\n".join(
        (
            f"{frames} frames, {frames / frame_rate:.4g} s at {frame_rate:g} a second; seed {seed}",
            f"first block after {costs.first_block_seconds:.3g} s",
            f"frames per second: {costs.denoising_rate:.4g} denoising only, "
            f"{costs.whole_rate:.4g} end to end",
            f"memory: {costs.memory_bytes:,} bytes",
        )
    )
