"""The weighted terms of a student's loss on its own rollouts, for any method that has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core.blocks import ExitStep, RolloutPath
from salt_zoo.core.errors import ZooError
from salt_zoo.core.protocols import Objective, TrainStep, VelocityNetwork
from salt_zoo.rollout.bound import BoundRollout

Terms = dict[str, Tensor]


def complete(options: Mapping[str, Any], zoo: Any, where: str) -> dict[str, Any]:
    """The options of registered objectives, every default filled in.

    A term that is switched off stays there as None, so that what is completed once more does not
    get its default back.

    Raises:
        ZooError: every term is switched off.
    """
    completed: dict[str, Any] = {}
    for name, given in options.items():
        completed[name] = None
        if given is not None:
            made = zoo.objectives.configure(name, given, f"{where}.{name}")
            completed[name] = made.model_dump(mode="json")
    if not any(given and given.get("weight", 1) for given in completed.values()):
        raise ZooError(
            f"{where}: every term is switched off (null, or of weight 0), so that nothing would "
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

    def train(self, step: TrainStep, path: RolloutPath, student: VelocityNetwork) -> Terms:
        """Roll out `student` along `path`, hand the gradient of the weighted sum of all terms to
        `step.backward`, and return the terms to log."""
        logged: Terms = {}

        def video_loss(video: Tensor) -> Tensor | None:
            terms = {name: term.on_video(video, path, step) for name, term in self.items()}
            return self._weighted(logged, terms, 1.0)

        def exit_loss(exit: ExitStep, share: float) -> Tensor | None:
            terms = {name: term.on_exit(exit, path, step) for name, term in self.items()}
            return self._weighted(logged, terms, share)

        video = BoundRollout(step, path).backward(student, video_loss, exit_loss)
        loss = sum((self[name].weight * term for name, term in logged.items()), video.new_zeros(()))
        apart = {name.replace("-", "_"): term for name, term in logged.items()}
        return {"loss": loss, **(apart if len(apart) > 1 else {})}

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
