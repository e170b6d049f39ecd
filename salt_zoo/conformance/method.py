"""Whether a method trains, resumes and can be planned as every method does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from salt_zoo.config.run import Resolved, resolve
from salt_zoo.costs.passes import count_forward_passes
from salt_zoo.plugin.isolation.checked_method import make_method
from salt_zoo.plugin.manager import Zoo
from salt_zoo.training.launch import train
from salt_zoo.training.state.networks import Networks
from salt_zoo.training.trainer import Trainer

#: A part as a run names it: its name, or its options with a `name`.
Named = str | Mapping[str, Any]


def check_method(
    method: Named,
    backbone: Named,
    dataset: Named,
    zoo: Zoo,
    *,
    updates: int = 2,
    batch_size: int = 2,
) -> Trainer:
    """Train a method for a few updates on a CPU and check that

    - every network that is trained changes, and no other does;
    - a run that is stopped and resumed is bitwise the uninterrupted one: weights, states of the
      optimizers and of the method. All its draws are then keyed, and it keeps no state of its own;
    - the passes that a plan counts on the meta device are those that happen.

    Args:
        method, backbone, dataset: as in a run's YAML.
        updates: of the student; 2 or more, those in which a term that starts late is used.
        batch_size: videos of an update.

    Returns:
        The trainer of the uninterrupted run.

    Raises:
        AssertionError: one of these is not so.
        ZooError: the parts do not fit each other, or the method breaks its protocol.
    """

    def run(count: int) -> Resolved:
        parts = {"method": method, "backbone": backbone, "dataset": dataset}
        content = {
            key: part if isinstance(part, str) else dict(part) for key, part in parts.items()
        }
        training = {"updates": count, "batch_size": batch_size, "log_every": 1, "trackers": []}
        return resolve({**content, "training": training}, zoo, "check_method")

    with TemporaryDirectory() as folder:
        whole: Trainer = train(run(updates), Path(folder) / "whole", zoo, "cpu")
        for count in (1, updates):
            parts: Trainer = train(run(count), Path(folder) / "parts", zoo, "cpu")
    _check_what_changed(whole)
    for place, (one, other) in _pairs(_state(whole), _state(parts)):
        same = torch.equal(one, other) if isinstance(one, Tensor) else one == other
        assert same, f"{place} of a resumed run is not that of an uninterrupted one"
    options = run(updates)
    fresh = make_method(options.config.method["name"], options.method, zoo)
    planned = count_forward_passes(fresh, whole.backbone, updates, whole.seed)
    _check_plan(whole, planned.counts, updates * batch_size)
    return whole


def _check_what_changed(trainer: Trainer) -> None:
    roles = trainer.networks.roles
    first = Networks(trainer.method.roles(), trainer.backbone, trainer.config, trainer.seed)
    for name, role in roles.items():
        before, after = first[name].state_dict(), trainer.networks[name].state_dict()
        changed = any(not torch.equal(before[key], after[key]) for key in before)
        if role.learning_rate is not None:
            never = name in trainer.never_trained()
            assert not never, (
                f"the role {name!r} has a learning rate, and update_order names it in none of "
                f"{trainer.config.updates} updates; leave out the rate, or train for more updates"
            )
            assert changed, f"the role {name!r} is trained and has not changed"
        elif role.is_frozen:
            assert not changed, f"the role {name!r} is frozen and has changed"


def _check_plan(trainer: Trainer, planned: Mapping[str, Mapping[str, float]], videos: int) -> None:
    for role, counts in planned.items():
        for kind, number in counts.items():
            wanted, happened = videos * number, trainer.counter.counts[role][kind]
            assert abs(wanted - happened) <= 1e-6 * max(wanted, 1.0), (
                f"role {role!r}: {happened:g} passes {kind} have happened, {wanted:g} are planned"
            )


def _state(trainer: Trainer) -> dict[str, Any]:
    """All that a checkpoint must hold."""
    return {
        "networks": {name: one.state_dict() for name, one in trainer.networks.items()},
        "optimizers": {
            role: [optimizer.state_dict() for optimizer in optimizers]
            for role, optimizers in trainer.networks.optimizers.items()
        },
        "method": trainer.method_state(),
    }


def _pairs(one: Any, other: Any, place: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The leaves of two contents of the same form, each with its place."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        for key in one:
            yield from _pairs(one[key], other[key], f"{place}.{key}" if place else str(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _pairs(a, b, f"{place}[{index}]")
    else:
        yield place, (one, other)
