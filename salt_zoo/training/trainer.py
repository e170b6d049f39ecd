"""The training loop. It takes the roles' turns as the method says and never knows its name."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from salt_zoo.conditions import negative_prompt, unconditional, without_prompt
from salt_zoo.draws import turn_draws
from salt_zoo.errors import TrainingError, ZooError
from salt_zoo.identity import first_difference, identity
from salt_zoo.methods import CheckedMethod
from salt_zoo.precision import backward_in, resolve_precision
from salt_zoo.protocols import Backbone, Batch, Dataset, Method, Turn
from salt_zoo.storage import plain
from salt_zoo.training.checkpoints import checkpoints, load_checkpoint, read_state, save_checkpoint
from salt_zoo.training.config import TrainingConfig
from salt_zoo.training.costs import PassCounter
from salt_zoo.training.flops import flops_of_passes
from salt_zoo.training.networks import Networks
from salt_zoo.training.optimizers import schedule_factor, set_rates

#: Called with the networks and the number of updates done; returns scalars to log.
Evaluate = Callable[[Networks, int], Mapping[str, float]]


@dataclass
class Trainer:
    """One run: a method on a backbone, from a seed, in a folder.

    `run` goes on from the newest checkpoint in the folder, if there is one; on a CPU the result is
    bitwise that of an uninterrupted run.

    Args:
        resolved: the configuration as the user would write it, with every default; for the
            checkpoints, which belong to it, and for the plugins' hooks.
        evaluate: quality metrics, run after every `evaluate_every` updates.
        progress: called after each update with (step, updates, logs).
    """

    method: Method
    backbone: Backbone
    dataset: Dataset
    config: TrainingConfig
    seed: int
    folder: Path
    accelerator: Accelerator
    resolved: Mapping[str, Any]
    hook: Any
    evaluate: Evaluate | None = None
    evaluate_every: int = 0
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        share = self.accelerator.num_processes * self.config.gradient_accumulation
        if self.config.batch_size % share:
            raise ZooError(
                f"training.batch_size: {self.config.batch_size} cannot be split over "
                f"{self.accelerator.num_processes} processes x "
                f"{self.config.gradient_accumulation} accumulation steps"
            )
        self._micro = self.config.batch_size // share
        if not isinstance(self.method, CheckedMethod):
            self.method = CheckedMethod(self.method, "the method")
        self.networks = Networks(self.method.roles(), self.backbone, self.config, self.seed)
        self.counter = PassCounter(dict(self.networks), self.backbone.latent_shape[1])
        self.seconds = 0.0
        self._fed: set[str] = set()  # roles that have had a gradient
        precision = resolve_precision(self.config.precision, self.accelerator.device.type)
        self._identity = plain(identity(self.resolved, precision))

    def run(self) -> Networks:
        """Train to the end and return the networks."""
        main = self.accelerator.is_main_process
        step = self._resume()
        if main:
            self.hook.training_started(config=plain(self.resolved), folder=self.folder, step=step)
        while step < self.config.updates:
            begin = time.perf_counter()
            logs = self.step(step)
            step += 1
            every = 1 if self.accelerator.device.type == "cpu" else self.config.log_every
            read = step % every == 0 or step == self.config.updates or self._saves(step)
            numbers = self._read(logs, step) if read else {}
            self.seconds += time.perf_counter() - begin
            if self.evaluate and self.evaluate_every and step % self.evaluate_every == 0:
                self.counter.paused = True
                quality = self.evaluate(self.networks, step)
                self.counter.paused = False
                numbers |= {f"quality/{name}": value for name, value in quality.items()}
            if main:
                if step % self.config.log_every == 0 or any(
                    k.startswith("quality/") for k in numbers
                ):
                    self.history.append(
                        {"step": step, "seconds": round(self.seconds, 2), **numbers}
                    )
                    self.accelerator.log(numbers, step=step)
                self.hook.step_finished(step=step, logs=numbers)
                if self.progress:
                    self.progress(step, self.config.updates, numbers)
            if self._saves(step):
                self._save(step)
        return self.networks

    def step(self, step: int) -> dict[str, Tensor]:
        """One update of the student, and the turns of the other roles that belong to it."""
        logs: dict[str, Tensor] = {}
        factor = schedule_factor(step, self.config.updates, self.config.schedule)
        taken: Counter[str] = Counter()
        for role in self.method.turns(step):
            with self.networks.training(role) as parameters:
                for part in range(self.config.gradient_accumulation):
                    turn = self._turn(role, step, taken[role], part)
                    logged = self.method.train(turn)
                    for name, value in logged.items():
                        value = value.detach().float() / self.config.gradient_accumulation
                        key = f"{role}/{name}"
                        # the last turn of a role in a step is what is shown
                        logs[key] = value + logs[key] if part else value
                logs[f"{role}/gradient_norm"] = self._update(role, parameters, factor)
            self.networks.follow(role, step)
            taken[role] += 1
        return logs

    def _turn(self, role: str, step: int, number: int, part: int) -> Turn:
        """What a role sees in its turn: this process's share of the global batch."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        first = (part * world + rank) * self._micro
        rows = range(first, first + self._micro)
        draws = turn_draws(self.seed, role, step, number, rows, self.backbone.device)
        sample = self.dataset.sample(draws.at("data"), "train", self.method.needs_data)
        with torch.no_grad():
            batch = Batch(
                prompts=sample.prompts,
                condition=self.backbone.encode_prompts(sample.prompts),
                unconditional=unconditional(self.backbone, self._micro),
                x0=None
                if sample.video is None
                else self.backbone.encode_video(sample.video.to(self.backbone.device)),
                trajectory=None
                if sample.trajectory is None
                else sample.trajectory.to(self.backbone.device),
                trajectory_times=sample.trajectory_times,
                no_prompt=without_prompt(self.backbone, self._micro)
                if negative_prompt(self.backbone)
                else None,
            )
        return Turn(
            role=role,
            step=step,
            networks=self.networks,
            batch=batch,
            draws=draws,
            blocks=self.backbone.blocks(),
            latent_shape=self.backbone.latent_shape,
            backward=self._backward,
        )

    def _backward(self, loss: Tensor) -> None:
        with backward_in(self.networks.precision, loss.device.type):
            (loss / self.config.gradient_accumulation).backward()

    def _update(self, role: str, parameters: list[Any], factor: float) -> Tensor:
        """Average the gradients over the processes, clip them, and step the role's optimizers."""
        if role not in self._fed:
            self._feed(role, parameters)
        if self.accelerator.num_processes > 1:
            # One mean after all backward passes of the turn, so that a method may call backward
            # as often as it wants; DDP expects exactly one.
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.copy_(self.accelerator.reduce(parameter.grad, reduction="mean"))
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip)
        set_rates(self.networks.optimizers[role], factor)
        for optimizer in self.networks.optimizers[role]:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def _feed(self, role: str, parameters: list[Any]) -> None:
        """A role whose first turn gives no gradient would be saved as it began."""
        if all(parameter.grad is None for parameter in parameters):
            assert isinstance(self.method, CheckedMethod)
            raise self.method.error(
                f"its turn of {role!r} gave no parameter of that network a gradient; train() must "
                "hand a loss that depends on it to turn.backward"
            )
        self._fed.add(role)

    def _read(self, logs: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """The logged tensors as numbers (one transfer); refuses to go on when one is not finite."""
        device = self.accelerator.device  # a plugin may log a constant of the CPU
        values = torch.stack([v.reshape(()).to(device) for v in logs.values()]).tolist()
        numbers = dict(zip(logs, values, strict=True))
        for name, value in numbers.items():
            if not math.isfinite(value):
                kept = checkpoints(self.folder / "checkpoints")
                raise TrainingError(
                    f"update {step}: {name} is {value}; lower the role's learning rate "
                    f"(training.optimizers.{name.split('/')[0]}.learning_rate) or training.clip; "
                    + (f"{kept[-1]} is kept" if kept else "nothing was saved before it")
                )
        return numbers

    def _saves(self, step: int) -> bool:
        return step % self.config.checkpoint_every == 0 or step == self.config.updates

    def _save(self, step: int) -> None:
        if self.accelerator.is_main_process:
            state = {
                "step": step,
                "identity": self._identity,
                "seconds": self.seconds,
                "passes": self.counter.state(),
                "history": self.history,
            }
            folder = save_checkpoint(self.folder / "checkpoints", self.networks, state)
            self.hook.checkpoint_saved(folder=folder, step=step)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        """Load the newest checkpoint, if there is one, and return the updates that it has done."""
        found = checkpoints(self.folder / "checkpoints")
        if not found:
            return 0
        kept = read_state(found[-1]).get("identity")
        if kept is None:
            raise ZooError(
                f"{self.folder}: its checkpoint was made by an older version of Salt Zoo; "
                "choose another folder, or delete this one to begin anew"
            )
        if different := first_difference(kept, self._identity):
            raise ZooError(
                f"{self.folder}: its checkpoint was made with another configuration "
                f"({different} differs); choose another folder, or delete this one to begin anew"
            )
        state = load_checkpoint(found[-1], self.networks, self.backbone.device)
        self.seconds = state["seconds"]
        self.history = state["history"]
        self.counter.load(state["passes"])
        return int(state["step"])

    def cost(self) -> dict[str, Any]:
        """What the run has taken: updates, passes by role, FLOPs, seconds.

        Passes and FLOPs are those of all processes, without the recomputation of gradient
        checkpointing.
        """
        world = self.accelerator.num_processes
        starts = {name: role.start for name, role in self.networks.roles.items()}
        flops = flops_of_passes(self.backbone, starts, self.counter.passes)
        return {
            "updates": self.config.updates,
            "passes": {
                role: {kind: world * number for kind, number in count.items()}
                for role, count in self.counter.counts.items()
            },
            "flops": world * sum(flops.values()),
            "seconds": round(self.seconds, 1),
        }
