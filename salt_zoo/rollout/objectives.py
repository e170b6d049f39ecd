"""The weighted terms of a student's loss on its own rollouts, for any method that has them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.blocks import ExitStep, RolloutPath
from salt_zoo.core.protocols import (
    NetworkObjective,
    NetworkSpec,
    Objective,
    Stateful,
    TrainStep,
    VelocityNetwork,
)
from salt_zoo.rollout.bound import BoundRollout

Terms = dict[str, Tensor]


def complete(
    options: Mapping[str, Any], zoo: Any, where: str, *, required: bool = True
) -> dict[str, Any]:
    """The options of registered objectives, every default filled in.

    A term that is switched off stays there as None, so that what is completed once more does not
    get its default back.

    Args:
        required: nothing else trains the student.

    Raises:
        ZooError: every term is switched off where one is required.
    """
    completed: dict[str, Any] = {}
    for name, given in options.items():
        completed[name] = None
        if given is not None:
            made = zoo.objectives.configure(name, given, f"{where}.{name}")
            completed[name] = made.model_dump(mode="json")
    on = [given for given in completed.values() if given is not None and given.get("weight", 1)]
    if required and not on:
        raise ZooError(
            f"{where}: every term is switched off (null, or of weight 0), so nothing would "
            "train the student; keep one, such as distribution-matching"
        )
    return completed


class Objectives(dict[str, Objective]):
    """Objectives by name. One of weight 0 is not among them: it computes and draws nothing."""

    @classmethod
    def of(cls, options: Mapping[str, Any], zoo: Any, where: str) -> Objectives:
        """Those of completed options."""
        made = cls()
        for name, given in options.items():
            if given is not None:
                checked = zoo.objectives.configure(name, given, f"{where}.{name}")
                objective = zoo.objectives.create(name, checked, zoo)
                if objective.weight != 0:
                    made[name] = objective
        return made

    @property
    def with_networks(self) -> dict[str, NetworkObjective]:
        """Those that have networks of their own."""
        return {name: one for name, one in self.items() if isinstance(one, NetworkObjective)}

    @property
    def needs_data(self) -> bool:
        """Whether one of them needs real videos."""
        return any(one.needs_data for one in self.with_networks.values())

    @functools.cached_property
    def trained(self) -> tuple[str, ...]:
        """The roles that they train; asked in every update."""
        roles = (role for one in self.with_networks.values() for role in one.roles().items())
        return tuple(name for name, role in roles if role.learning_rate is not None)

    def beside(self, own: Mapping[str, NetworkSpec]) -> dict[str, NetworkSpec]:
        """A method's own roles and theirs.

        Raises:
            ZooError: a name is taken.
        """
        roles = dict(own)
        for name, objective in self.with_networks.items():
            for role, spec in objective.roles().items():
                if role in roles:
                    raise ZooError(
                        f"objective {name!r}: there is a role {role!r} already, of the method or "
                        "of another objective; switch one of them off"
                    )
                roles[role] = spec
        return roles

    def train(self, step: TrainStep, path: RolloutPath, student: VelocityNetwork) -> Terms:
        """Roll out `student` along `path`, hand the gradient of the weighted sum of all terms to
        `step.backward`, and return the terms to log."""
        logged = self.train_terms(step, path, student)
        zero = torch.zeros((), device=step.rng.device)
        loss = sum((self[name].weight * term for name, term in logged.items()), zero)
        apart = {name.replace("-", "_"): term for name, term in logged.items()}
        return {"loss": loss, **(apart if len(apart) > 1 else {})}

    def train_terms(self, step: TrainStep, path: RolloutPath, student: VelocityNetwork) -> Terms:
        """The same, but the terms by name and no sum."""
        logged: Terms = {}

        def video_loss(video: Tensor) -> Tensor | None:
            terms = {name: term.on_video(video, path, step) for name, term in self.items()}
            return self._weighted(logged, terms, 1.0)

        def exit_loss(exit: ExitStep, share: float) -> Tensor | None:
            terms = {name: term.on_exit(exit, path, step) for name, term in self.items()}
            return self._weighted(logged, terms, share)

        BoundRollout(step, path).backward(student, video_loss, exit_loss)
        return logged

    def train_networks(self, video: Tensor, step: TrainStep) -> Terms:
        """Hand the losses of their own networks on a student's videos to `step.backward`, and
        return them to log. `video` `[B, C, F, H, W]` has no gradient."""
        logged: Terms = {}
        for name, objective in self.with_networks.items():
            loss = objective.on_generated(video, step)
            if loss is not None:
                step.backward(loss)
                logged[name.replace("-", "_")] = loss.detach()
        return logged

    def state_dict(self) -> dict[str, Any]:
        """The states of those that have one, by name."""
        return {name: one.state_dict() for name, one in self.items() if isinstance(one, Stateful)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each its state."""
        for name, one in self.items():
            if isinstance(one, Stateful):
                one.load_state_dict(state[name])

    def _weighted(
        self, logged: Terms, terms: Mapping[str, Tensor | None], share: float
    ) -> Tensor | None:
        """The weighted sum of the terms that are due; `logged` gets them by their share."""
        weighted = []
        for name, term in terms.items():
            if term is not None:
                logged[name] = logged.get(name, 0) + share * term.detach()
                weighted.append(self[name].weight * term)
        return torch.stack(weighted).sum() if weighted else None
