"""What the parts of the zoo are to each other. Protocols, not base classes: nothing inherits.

Shapes: videos and latents `[B, C, F, H, W]`, times `[B]` or `[B, F]` in [0, 1] with 1 = noise.
All times are the network's own, that is, already shifted; `flow.step_list(n, shift)` is the list
of an n-step student, in training and at evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from salt_zoo.core.blocks import Blocks, ExitStep, RolloutPath
    from salt_zoo.core.rng import KeyedRNG

#: Whose weights a network begins with: those of the teacher, of a bidirectional network of the
#: student's size (`score`: the teacher, where that has this size), of the initial student, or none.
Start = Literal["teacher", "score", "student", "random"]

#: What a network is told about the wanted video: named tensors, each with the batch in front.
#: Text-to-video backbones have `text`, `[B, tokens, width]`.
Condition = Mapping[str, "Tensor"]


class Memory(Protocol):
    """A KV cache and its policy. Read by `forward`, written by `update_cache` only.

    It may also have `slots`, the frames that it has room for (a switch is then handed no more of
    the past than that), and `limit`, the frames after which it is full; None or nothing says that
    it is never full. `distance(other) -> [B, layers]`, where it has it, is how far what it keeps is
    from what another memory of the same network and video size keeps, relative to the other.
    """

    def bytes(self) -> int:
        """Bytes that the cached keys and values take."""
        ...

    def switch(self, recent: Sequence[Tensor], update_cache: Callable[[Tensor], None]) -> None:
        """The prompt changes before the next block: keep, drop or rebuild what is remembered.

        `recent` are the clean latents of the finished blocks, the oldest first (as many as the
        caller has kept); `update_cache` commits one of them anew under the new prompt.
        """
        ...


class VelocityNetwork(Protocol):
    """A torch module that predicts the velocity `noise - x0`.

    It may also be a `FeatureExtractor` and a `MaskedForward`.
    """

    def __call__(
        self, x: Tensor, t: Tensor, condition: Condition, memory: Memory | None = None
    ) -> Tensor:
        """The velocity `[B, C, F, H, W]` at `x` and `t`; never changes `memory`."""
        ...

    def update_cache(self, x: Tensor, t: Tensor, condition: Condition, memory: Memory) -> None:
        """Commit a finished block to `memory`; no gradient. Evaluates the network through
        `self(...)`, so that the pass is counted."""
        ...


@runtime_checkable
class FeatureExtractor(Protocol):
    """A velocity network that shows its hidden states."""

    def features(self, x: Tensor, t: Tensor, condition: Condition, depth: float) -> Tensor:
        """`[B, F*S, D]` after the share `depth` in (0, 1] of its blocks, tokens in frame order."""
        ...


@runtime_checkable
class MaskedForward(Protocol):
    """A causal network that passes all blocks at once, under a mask."""

    def forward_masked(
        self, x: Tensor, t: Tensor, x0: Tensor, condition: Condition
    ) -> Tensor | None:
        """Velocities `[B, C, F, H, W]` of noisy `x`, every block given the clean blocks of `x0`
        before it; None where its memory allows no mask. The past carries gradient."""
        ...


class Backbone(Protocol):
    """A pretrained family of velocity networks with its text and video codecs.

    For streams it may also have `frame_decoder()`, a new decoder for the blocks of one stream in
    their order, latents `[B, C, F, H, W]` to pixels (default: `decode_video` of each block), and
    `pixel_frames(n)`, the decoded frames of a video of n latent frames (default: n). `frame_size`,
    where it knows them, are height and width of a decoded frame.

    Where the networks of some starts are of another kind or size than the student's, it also has
    `source(start)`, the backbone whose networks those are: `network("teacher")` of that one makes
    them, and `network("random")` one like them; see `salt_zoo.core.roles`.

    To load other codes' weights its class has `recognise(place, zoo, size) -> options` and
    `streams`; with `unused` it says which options change nothing; see `WanBackbone`.
    """

    latent_shape: tuple[int, int, int, int]  # C, F, H, W of one video
    frame_rate: float  # frames of decoded video a second
    guidance_scale: float  # with which the teacher is usually sampled
    #: What guidance leads away from; "" for a backbone that has no such attribute.
    negative_prompt: str
    device: Any

    def to(self, device: Any) -> Backbone:
        """Everything that it makes or encodes from now on lies on `device`; returns itself."""
        ...

    def network(self, start: Literal["teacher", "student", "random"]) -> nn.Module:
        """A new network with the weights of the teacher or of the initial student, or random."""
        ...

    def blocks(self, network: Any = None) -> Blocks:
        """In which blocks of frames `network` (None: a student) generates, and its memory."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Condition: ...

    def encode_video(self, video: Tensor) -> Tensor:
        """Pixels in [0, 1], `[B, channels, frames, height, width]`, to latents."""
        ...

    def decode_video(self, latents: Tensor) -> Tensor:
        """Latents to pixels; nominally in [0, 1], not clamped."""
        ...

    def save(self, network: nn.Module, folder: Any) -> None:
        """Write a network (and what runs it) to `folder`, loadable by `load`."""
        ...

    def load(self, folder: Any) -> nn.Module: ...

    def fingerprint(self) -> Mapping[str, str]:
        """What identifies the teacher: names of files or weights, each with a digest."""
        ...


@dataclass(frozen=True)
class Sample:
    """Rows of a dataset: pixels in [0, 1] `[B, channels, frames, height, width]` and prompts.

    Where the dataset has them, `trajectory` are a flow's states in latents, `[B, K, C, F, H, W]`:
    at the falling `trajectory_times`, then at time 0, so that K is their number and one.
    """

    prompts: list[str]
    video: Tensor | None
    trajectory: Tensor | None = None
    trajectory_times: tuple[float, ...] = ()


class Dataset(Protocol):
    """Prompts, and real videos where the data has them."""

    def prompts(self, split: Literal["train", "validation", "test"]) -> list[str]: ...

    def sample(
        self, rng: KeyedRNG, split: Literal["train", "validation", "test"], videos: bool
    ) -> Sample:
        """One row for each row of `draws`; `videos=False` saves making what is not looked at."""
        ...

    def real(
        self, prompts: Sequence[str], rng: KeyedRNG, split: str, frames: int | None = None
    ) -> Tensor | None:
        """A real video for each of the prompts, or None where there is none.

        `frames` of pixels; None is the data's own length. A longer video begins as a shorter one.
        """
        ...

    def fingerprint(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class NetworkSpec:
    """A network that a method needs.

    `start`: whose weights it begins with; a network that follows the student's distribution starts
    as `score`, which has the student's size whatever the teacher's is. `learning_rate`: it is
    trained, by default at this rate (None: it is frozen). `ema_of`: it follows another role as
    its exponential moving average, `mean = decay * mean + (1 - decay) * weights` after each of that
    role's updates.
    """

    start: Start
    learning_rate: float | None = None
    ema_of: str | None = None
    decay: float = 0.99


@dataclass(frozen=True)
class Batch:
    """What an update is trained on. `x0` is None for a method that says `needs_data = False`.

    `unconditional` is the backbone's negative prompt, from which guidance leads away. `no_prompt`
    is the empty one, for which a network is trained by dropping prompts; None says that both are
    the same. `trajectory` and its times are those of `Sample`, on the backbone's device.
    """

    prompts: list[str]
    condition: Condition
    unconditional: Condition
    x0: Tensor | None
    trajectory: Tensor | None = None
    trajectory_times: tuple[float, ...] = ()
    no_prompt: Condition | None = None


@dataclass(frozen=True)
class TrainStep:
    """One micro-batch of one update of one role; all that a method may touch.

    `index` counts training steps from 0: each has one update of the student, and as many of the
    other roles as `update_order` says.
    """

    role: str
    index: int
    networks: Mapping[str, Any]
    batch: Batch
    rng: KeyedRNG
    blocks: Blocks
    latent_shape: tuple[int, int, int, int]
    backward: Callable[[Tensor], None]


@runtime_checkable
class Method(Protocol):
    """A recipe: which networks it needs, which of them is trained when, and their losses.

    Made as `Factory(config, zoo)`, where `Factory.Config` is the pydantic model of its options.
    """

    needs_data: bool

    def roles(self) -> Mapping[str, NetworkSpec]:
        """Its networks; the one that is evaluated and saved is called `student`."""
        ...

    def update_order(self, step: int) -> Sequence[str]:
        """The roles trained in `step`, in order; the student is trained once a step."""
        ...

    def train(self, step: TrainStep) -> Mapping[str, Tensor]:
        """Compute the loss of `step.role`, hand it to `step.backward` (whole or in parts) and
        return scalars to log, still on the device."""
        ...


class Objective(Protocol):
    """One differentiable term of a student's loss. Made as `Factory(config, zoo)`.

    A term whose `weight` is 0 is never asked and draws nothing: the method is then bitwise the one
    without it.
    """

    weight: float

    def on_exit(self, exit: ExitStep, path: RolloutPath, step: TrainStep) -> Tensor | None:
        """The term's share at one block's exit step, before the block is remembered; or None.

        Shares are averaged by their share of frames.
        """
        ...

    def on_video(self, video: Tensor, path: RolloutPath, step: TrainStep) -> Tensor | None:
        """The term's share for the whole generated video, `[B, C, F, H, W]` with gradient; or
        None."""
        ...


#: The direction of a metric: an end of its scale, a value that it should have, or none.
Better = Literal["higher", "lower", "target", "none"]
#: What a metric is for. `quality`: it judges videos, so it may choose a best arm. `diagnostic`: it
#: explains a method and can be good where videos are bad (a collapsed student has no semigroup
#: defect); outcomes may name it, but it has no vote. `description`: it says what videos are like.
MetricKind = Literal["quality", "diagnostic", "description"]


@runtime_checkable
class Metric(Protocol):
    """Scores of generated videos, one row a video, so that they can be paired and resampled.

    Made as `Factory(config, zoo)`. It may also declare

    - `target`: the right value, with `better = "target"`; arms are compared by their distances.
    - `kind`: see `MetricKind`; by default `quality`, or `description` where `better` is `none`.
    - `mean = True`: `reduce` is the mean of `[N]` scores. Resampling is then one matrix product
      and long videos have slopes; by default `reduce` is asked for every resample.
    - `bounds`: the least and the largest score, `(0, 1)` for a share. Without spread among the
      scores, an interval exists only for a metric with bounds.
    - all-NaN rows, from a metric with `own_steps`, say that it does not apply to the network.
    - `version`: an integer to raise whenever its numbers change; old scores are then measured anew.
    - `whole_video = True`: it cannot score clips out of the middle of longer videos.
    - `prepare()`: fetches its weights.
    - `reduce_many`: `reduce` of `[R, N, D]` rows to `[R]` numbers, where `reduce` is slow.
    """

    better: Better
    #: Set for a metric that makes rollouts of its own with so many steps: it is measured once a
    #: network, not once for each NFE of the study. None for metrics of the videos. `own_sampler`,
    #: where it has it, is how those rollouts go (default: `sde`).
    own_steps: int | None

    def measure(self, videos: Any) -> Tensor:
        """`[N]` scores or `[N, D]` features of a `salt_zoo.evaluation.videos.Videos`."""
        ...

    def reduce(self, rows: Tensor) -> float:
        """One number for any set of those rows; the mean for most metrics."""
        ...
