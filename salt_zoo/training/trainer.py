"""The training loop. It takes the roles' updates as the method says and never knows its name."""

from __future__ import annotations

import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from salt_zoo.config.execution import ExecutionConfig
from salt_zoo.config.identity import identity
from salt_zoo.config.training import TrainingConfig
from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.core.methods.method import trained_together
from salt_zoo.core.networks.lora import trainable
from salt_zoo.core.networks.precision import backward_in, resolve_precision
from salt_zoo.core.protocols import Backbone, Dataset, Method, TrainStep
from salt_zoo.costs.counter import PassCounter
from salt_zoo.costs.flops import flops_of_passes
from salt_zoo.io.distributed import on_main
from salt_zoo.io.files.storage import plain
from salt_zoo.plugin.isolation.checked_method import CheckedMethod
from salt_zoo.training.checkpoints.blowups import not_finite
from salt_zoo.training.checkpoints.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from salt_zoo.training.data.batches import AHEAD, Batches
from salt_zoo.training.data.prefetch import Place
from salt_zoo.training.devices import log
from salt_zoo.training.gradients import average_buffers, average_gradients
from salt_zoo.training.state.layout import make_layout
from salt_zoo.training.state.networks import Networks
from salt_zoo.training.state.optimizers import schedule_factor, set_rates
from salt_zoo.training.state.sharding import is_sharded, whole

#: Called with the networks and the number of updates done; returns scalars to log.
Evaluate = Callable[[Networks, int], Mapping[str, float]]


@dataclass
class Trainer:
    """One run: a method on a backbone, from a seed, in a folder.

    `run` goes on from `kept`, if it is given; on a CPU the result is bitwise that of an
    uninterrupted run.

    Args:
        resolved: the configuration as the user would write it, with every default; for the
            checkpoints, which belong to it, and for the plugins' hooks.
        origin: what it comes from beside that, for the checkpoints.
        kept: the checkpoint to go on from; see `resuming.find_checkpoint`.
        evaluate: quality metrics, run after every `evaluate_every` updates, by the first process.
        progress: called after each update with (step, updates, logs).
    """

    method: Method
    backbone: Backbone
    dataset: Dataset
    config: TrainingConfig
    execution: ExecutionConfig
    seed: int
    folder: Path
    accelerator: Accelerator
    resolved: Mapping[str, Any]
    hook: Any
    origin: Mapping[str, Any] = field(default_factory=dict)
    kept: Checkpoint | None = None
    evaluate: Evaluate | None = None
    evaluate_every: int = 0
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layout = make_layout(
            self.execution,
            self.config.batch_size,
            self.accelerator.num_processes,
            self.accelerator.process_index,
            self.accelerator.device.type,
        )
        given = self.method
        checked = given if isinstance(given, CheckedMethod) else CheckedMethod(given, "the method")
        self.method = self._checked = checked
        self._batches = Batches(
            self.method,
            self.backbone,
            self.dataset,
            self.config,
            self.seed,
            self.layout,
        )
        self.networks = Networks(
            self.method.roles(),
            self.backbone,
            self.config,
            self.seed,
            self.layout,
            gradient_checkpointing=self.execution.gradient_checkpointing,
            offload=self.execution.offload,
            attention=self.execution.attention,
        )
        self.counter = PassCounter(
            dict(self.networks), self.backbone.latent_shape[1], self.networks.modules
        )
        self.seconds = 0.0
        self._fed: set[str] = set()  # roles that have had a gradient
        self._identity = identity_on(self.resolved, self.config, self.accelerator)

    def run(self) -> Networks:
        """Train to the end and return the networks."""
        try:
            return self._run()
        finally:
            self._batches.close()

    def _run(self) -> Networks:
        main = self.accelerator.is_main_process
        step = self._resume()
        if main:
            self.hook.training_started(config=plain(self.resolved), folder=self.folder, step=step)
        first = step
        while step < self.config.updates:
            if (step - first) % AHEAD == 0:
                self._batches.encode_ahead(step)
            begin = time.perf_counter()
            logs = self.step(step)
            step += 1
            every = 1 if self.accelerator.device.type == "cpu" else self.config.log_every
            read = step % every == 0 or step == self.config.updates or self._saves(step)
            numbers = self._read(logs, step) if read else {}
            self.seconds += time.perf_counter() - begin
            if self.evaluate and self.evaluate_every and step % self.evaluate_every == 0:
                self.counter.paused = True
                self._batches.wait()  # it uses the data set, too
                measure = functools.partial(self.evaluate, self.networks, step)
                quality = measure() if self.layout.together else on_main(measure)
                self.counter.paused = False
                numbers |= {f"quality/{name}": value for name, value in quality.items()}
            if main:
                if step % self.config.log_every == 0 or any(
                    k.startswith("quality/") for k in numbers
                ):
                    self.history.append(
                        {"step": step, "seconds": round(self.seconds, 2), **numbers}
                    )
                    log(self.accelerator, numbers, step)
                self.hook.step_finished(step=step, logs=numbers)
                if self.progress:
                    self.progress(step, self.config.updates, numbers)
            if self._saves(step):
                self._save(step)
        return self.networks

    def step(self, step: int) -> dict[str, Tensor]:
        """One update of the student, and the updates of the other roles that belong to it."""
        logs: dict[str, Tensor] = {}
        factor = schedule_factor(step, self.config.updates, self.config.schedule)
        taken: Counter[str] = Counter()
        for update in self.method.update_order(step):
            roles = trained_together(update)
            first = roles[0]
            if self.networks.roles[first].copy_of:
                self.networks.update_copy(first)
                continue
            with self.networks.training(roles):
                for part in range(self.layout.accumulation):
                    train_step = self._train_step(Place(first, step, taken[first], part))
                    logged = self.method.train(train_step)
                    for name, value in logged.items():
                        value = value.detach().float() / self.layout.accumulation
                        key = f"{first}/{name}"
                        # the last update of a role in a step is what is shown
                        logs[key] = value + logs[key] if part else value
                for role in roles:
                    logs[f"{role}/gradient_norm"] = self._update(role, factor)
            for name in self.networks.modules:
                average_buffers(self.networks[name], self.accelerator)
            for role in roles:
                self.networks.update_ema(role, step)
            taken[first] += 1
        return logs

    def _train_step(self, place: Place) -> TrainStep:
        """What a role sees in its update."""
        batch, rng = self._batches.get(place)
        return TrainStep(
            role=place.role,
            index=place.step,
            networks=self.networks,
            batch=batch,
            rng=rng,
            blocks=self.backbone.blocks(),
            latent_shape=self.backbone.latent_shape,
            backward=self._backward,
        )

    def _backward(self, loss: Tensor) -> None:
        with backward_in(self.networks.precision, loss.device.type):
            (loss / self.layout.accumulation).backward()

    def _update(self, role: str, factor: float) -> Tensor:
        """Average the gradients over the processes, clip them, and step the role's optimizers."""
        parameters = [weight for _, weight in trainable(self.networks[role])]
        if role not in self._fed:
            self._feed(role, parameters)
        if not is_sharded(self.networks[role]):  # FSDP has averaged them in the backward pass
            average_gradients(parameters, self.accelerator)
        norm = whole(torch.nn.utils.clip_grad_norm_(parameters, self.config.clip))
        set_rates(self.networks.optimizers[role], factor)
        for optimizer in self.networks.optimizers[role]:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def _feed(self, role: str, parameters: list[Any]) -> None:
        """A role whose first update gives no gradient would be saved as it began."""
        if all(parameter.grad is None for parameter in parameters):
            raise self._checked.error(
                f"its update of {role!r} gave no parameter of that network a gradient; train() "
                "must hand a loss that depends on it to step.backward"
            )
        self._fed.add(role)

    def _read(self, logs: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """The logged tensors as numbers (one transfer), means over all processes; refuses to go on
        when one is not finite."""
        device = self.accelerator.device  # a plugin may log a constant of the CPU
        stacked = torch.stack([v.reshape(()).to(device) for v in logs.values()])
        if self.accelerator.num_processes > 1:
            stacked = self.accelerator.reduce(stacked, reduction="mean")
        numbers = dict(zip(logs, stacked.tolist(), strict=True))
        for name, value in numbers.items():
            if not math.isfinite(value):
                place = self.folder / "checkpoints"
                raise not_finite(step, name, value, self.networks, place)
        return numbers

    def _saves(self, step: int) -> bool:
        return step % self.config.checkpoint_every == 0 or step == self.config.updates

    def _save(self, step: int) -> None:
        # processes that share videos have the same one
        states = gather_object([self.method_state()])[:: self.layout.sequence]
        state = {
            "step": step,
            "identity": self._identity,
            "origin": self.origin,
            "seconds": self.seconds,
            "passes": self.counter.state(),
            "history": self.history,
        }
        folder = save_checkpoint(self.folder / "checkpoints", self.networks, state, states)
        on_main(lambda: self.hook.checkpoint_saved(folder=folder, step=step))

    def _resume(self) -> int:
        """Load the checkpoint, if there is one, and return the updates that it has done."""
        if self.kept is None:
            return 0
        states = load_checkpoint(self.kept, self.networks, self.backbone.device)
        if states:  # of another number of shares: all go on from the first's
            whole = len(states) == self.layout.data_processes
            self._checked.load_state_dict(states[self.layout.share if whole else 0])
        state = self.kept.state
        try:
            self.seconds = float(state["seconds"])
            self.history = list(state["history"])
            self.counter.load(state["passes"])
            before = state.get("origin", self.origin).get("processes", 1)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ZooError(
                f"{self.kept.folder}: its state cannot be read ({reason(error)}); delete the folder"
            ) from None
        self.counter.scale(before / self.layout.data_processes)
        return self.kept.step

    def never_trained(self) -> list[str]:
        """The roles with a learning rate that no update of the run trains."""
        return self._checked.never_trained(self.config.updates)

    def method_state(self) -> dict[str, Any]:
        """What a checkpoint holds of the method itself; see `salt_zoo.core.protocols.Stateful`."""
        return self._checked.state_dict()

    def cost(self) -> dict[str, Any]:
        """What the run has taken: updates, passes by role, FLOPs, seconds.

        Passes and FLOPs are those of all processes, without the recomputation of gradient
        checkpointing.
        """
        shares = self.layout.data_processes  # what shares a video is counted in each
        flops = flops_of_passes(self.backbone, self.networks.roles, self.counter.passes)
        return {
            "updates": self.config.updates,
            "passes": {
                role: {kind: shares * number for kind, number in count.items()}
                for role, count in self.counter.counts.items()
            },
            "flops": shares * sum(flops.values()),
            "seconds": round(self.seconds, 1),
        }


def identity_on(
    resolved: Mapping[str, Any], config: TrainingConfig, accelerator: Accelerator
) -> dict[str, Any]:
    """The identity of a run on this device, as a checkpoint holds it."""
    precision = resolve_precision(config.precision, accelerator.device.type)
    content: dict[str, Any] = plain(identity(resolved, precision))
    return content
