"""Methods and objectives: which networks are trained when, and by which loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.backbone import Start
from salt_zoo.core.networks.network import Condition

if TYPE_CHECKING:
    from torch import Tensor, nn

    from salt_zoo.core.base.rng import KeyedRNG
    from salt_zoo.core.networks.backbone import Backbone
    from salt_zoo.core.networks.blocks import Blocks, ExitStep, RolloutPath
    from salt_zoo.core.networks.lora import LoraConfig


@dataclass(frozen=True)
class NetworkSpec:
    """A network that a method or an objective needs.

    Attributes:
        start: whose weights a velocity network begins with. One that follows the student's
            distribution starts as `score`, which has the student's size whatever the teacher's is.
        learning_rate: it is trained, by default at this rate. None: it is frozen.
        ema_of: it is the exponential moving average of another role, of which it begins as a copy:
            `mean = decay * mean + (1 - decay) * weights` after each of that role's updates. It
            needs neither `start` nor `factory`.
        decay: of the average, in [0, 1].
        copy_of: it begins as a copy of another role, which is trained or an average, and takes over
            that role's weights whenever `Method.update_order` names it; in between it is frozen.
            It needs neither `start` nor `factory`.
        factory: instead of `start`: makes any other module (a discriminator, an embedding, a reward
            model) for a backbone. Weights are drawn from torch's global generator, which is seeded
            by the run's seed and the role; a frozen one is put into its mode of evaluation. Plans
            call it inside `torch.device("meta")`, and run the module's `forward` there: shapes
            without data.
        lora: its weights are frozen and adapters are trained; set by the configuration
            (`training.lora`), not by a method.
    """

    start: Start | None = None
    learning_rate: float | None = None
    ema_of: str | None = None
    decay: float = 0.99
    copy_of: str | None = None
    factory: Callable[[Backbone], nn.Module] | None = None
    lora: LoraConfig | None = None

    @property
    def follows(self) -> str | None:
        """The role whose weights it has, averaged or copied; None for one with its own."""
        return self.ema_of or self.copy_of

    @property
    def is_frozen(self) -> bool:
        """Whether its weights stay as they were at the start."""
        return self.learning_rate is None and self.follows is None


def check_followed(roles: Mapping[str, NetworkSpec]) -> None:
    """Refuse averages and copies of what never changes.

    Raises:
        ZooError: which role follows what.
    """
    trained = [name for name, role in roles.items() if role.learning_rate is not None]
    changing = [*trained, *(name for name, role in roles.items() if role.ema_of)]
    for name, role in roles.items():
        if role.ema_of is not None and role.ema_of not in trained:
            raise ZooError(f"role {name!r} averages {role.ema_of!r}, which is not trained")
        if role.copy_of is not None and role.copy_of not in changing:
            raise ZooError(
                f"role {name!r} copies {role.copy_of!r}, which is neither trained nor an average"
            )


def trained_together(update: str | Sequence[str]) -> tuple[str, ...]:
    """The roles of one update of `Method.update_order`; the first names it."""
    return (update,) if isinstance(update, str) else tuple(update)


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
    other roles as `update_order` says. Of roles that are trained together `role` is the first.
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

    def update_order(self, index: int) -> Sequence[str | tuple[str, ...]]:
        """The updates of step `index` in order: a role, or those that one update trains together.

        The student is trained once a step. A role with `copy_of` among them is copied at that
        moment, and `train` is not called for it.
        """
        ...

    def train(self, step: TrainStep) -> Mapping[str, Tensor]:
        """Compute the loss of `step.role`, hand it to `step.backward` (whole or in parts) and
        return scalars to log, still on the device."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A method or an objective with a state that a resumed run needs: running statistics, the
    balance of two losses, a curriculum.

    Checkpoints hold it, each process's own. It is made of tensors, numbers, texts, lists and
    mappings; tensors come back on the CPU.
    """

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class NeedsTrajectories(Protocol):
    """A method that trains on the stored trajectories of a dataset, see `Sample`."""

    #: The falling times at which it needs their states; empty: it needs none.
    stored_times: Sequence[float]


class Objective(Protocol):
    """One differentiable term of a student's loss. Made as `Factory(config, zoo)`.

    It may also be a `NetworkObjective` and `Stateful`. One of `weight` 0 is not made: it computes
    nothing, draws nothing, and the method is bitwise the one without it.
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


@runtime_checkable
class NetworkObjective(Objective, Protocol):
    """An objective with networks of its own: a discriminator, which it trains on the student's
    videos, or a frozen network."""

    #: Whether it needs real videos, `step.batch.x0`.
    needs_data: bool

    def roles(self) -> Mapping[str, NetworkSpec]:
        """Its networks. They stand beside the method's in `step.networks`."""
        ...

    def on_generated(self, video: Tensor, step: TrainStep) -> Tensor | None:
        """The loss of its trained networks on videos of the student, `[B, C, F, H, W]` without
        gradient; None where it trains none.

        DMD calls it in each update of the fake score, on that update's videos; gradient also
        reaches the fake score, if the loss depends on it.
        """
        ...
