"""Methods of plugins inside a frame: their errors name them, and what they return is what
`salt_zoo.core.protocols.Method` says."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from salt_zoo.core.base.errors import ZooError, did_you_mean, shown, text_of
from salt_zoo.core.methods.method import check_followed, trained_together
from salt_zoo.core.protocols import (
    Backbone,
    Method,
    NeedsTrajectories,
    NetworkSpec,
    Stateful,
    TrainStep,
)
from salt_zoo.io.printing import say_once
from salt_zoo.plugin.isolation.checked_roles import check_role
from salt_zoo.plugin.isolation.foreign import BrokenPart, ForeignError, foreign
from salt_zoo.plugin.isolation.surroundings import settings_kept
from salt_zoo.plugin.isolation.weights import cannot_write, weight_versions

if TYPE_CHECKING:
    from torch import Tensor, nn

#: No step has more updates: `update_order` without an end must not be waited for.
MOST_UPDATES = 100_000


def make_method(name: str, options: BaseModel, zoo: Any, planned: bool = False) -> CheckedMethod:
    """A registered method, checked whenever it is called. `planned`: on the networks of a plan
    alone, to whose weights torch refuses to write."""
    made = zoo.methods.create(name, options, zoo)
    return CheckedMethod(made, f"method {zoo.methods[name]}", planned)


class CheckedMethod:
    """A method whose errors and breaches of the protocol are a `ForeignError` that begins with
    `title`. Other attributes are the method's own."""

    def __init__(self, method: Method, title: str, planned: bool = False) -> None:
        self.method, self.title, self.planned = method, title, planned
        with foreign(title):
            for wanted in ("needs_data", "roles", "update_order", "train"):
                if not hasattr(method, wanted):
                    raise BrokenPart(
                        f"{title}: it lacks {wanted!r}; see salt_zoo.core.protocols.Method"
                    )
                if inspect.iscoroutinefunction(getattr(method, wanted)):
                    raise BrokenPart(f"{title}: its {wanted}() is async; write a plain function")
            self.needs_data = bool(method.needs_data)
            self.stored_times: tuple[float, ...] = ()
            if isinstance(method, NeedsTrajectories):
                self.stored_times = tuple(method.stored_times)
        self._trained: tuple[str, ...] | None = None
        self._told = False  # that it changes settings of the process
        self._copies: tuple[str, ...] = ()
        self._modules: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name == "method":  # not there yet
            raise AttributeError(name)
        return getattr(self.method, name)

    def error(self, text: str) -> ForeignError:
        return ForeignError(f"{self.title}: {text}")

    def roles(self) -> dict[str, NetworkSpec]:
        """Its networks by role, the student among them."""
        with foreign(f"{self.title}, roles()"):
            found = self.method.roles()
            roles = dict(found) if isinstance(found, Mapping) else None
        if not roles:
            raise self.error(
                f"roles() returned {shown(found)}; it must be a mapping from names to "
                "salt_zoo.core.protocols.NetworkSpec that has a 'student'"
            )
        for name, role in roles.items():
            check_role(name, role, self.error)
            if role.factory is not None:
                roles[name] = replace(role, factory=self._factory(name, role.factory))
        trained = [name for name, role in roles.items() if role.learning_rate is not None]
        if "student" not in trained:
            raise self.error("it has no trained network of the role 'student'")
        try:
            check_followed(roles)
        except ZooError as error:
            raise self.error(text_of(error)) from None
        self._trained = tuple(trained)
        self._copies = tuple(name for name, role in roles.items() if role.copy_of is not None)
        self._modules = {name for name, role in roles.items() if role.factory is not None}
        return roles

    def _factory(
        self, name: str, factory: Callable[[Backbone], nn.Module]
    ) -> Callable[[Backbone], nn.Module]:
        """The factory of a role, checked when it is called."""
        import torch

        def make(backbone: Backbone) -> nn.Module:
            with foreign(f"{self.title}, factory of the role {name!r}"):
                found = factory(backbone)
            if not isinstance(found, torch.nn.Module):
                raise self.error(
                    f"the factory of the role {name!r} returned {shown(found)}; it must be a torch "
                    "module"
                )
            return found

        return make

    def update_order(self, index: int) -> list[str | tuple[str, ...]]:
        """The updates of step `index` in order, each a role or several, the student among them."""
        if self._trained is None:
            self.roles()
        assert self._trained is not None
        told = f"update_order({index})"
        with foreign(f"{self.title}, {told}"):
            found = self.method.update_order(index)
            wrong = isinstance(found, str) or not isinstance(found, Iterable)
            order = [] if wrong else list(itertools.islice(found, MOST_UPDATES + 1))
        if wrong:
            raise self.error(
                f"{told} returned {shown(found)}; it must be a list of the roles to train"
            )
        if len(order) > MOST_UPDATES:
            raise self.error(f"{told} has no end: more than {MOST_UPDATES} roles")
        updates = [tuple(one) if isinstance(one, list) else one for one in order]
        roles: list[str] = []
        for update in updates:
            if isinstance(update, tuple) and (not update or len(set(update)) < len(update)):
                raise self.error(
                    f"{told} has {shown(update)}; one update trains one role or several different "
                    "ones"
                )
            roles += update if isinstance(update, tuple) else [update]
        for role in roles:
            if not isinstance(role, str) or role not in (*self._trained, *self._copies):
                hint = did_you_mean(str(role), (*self._trained, *self._copies))
                raise self.error(f"{told} names {shown(role)}, which is not trained; {hint}")
        for update in updates:
            copies = [role for role in self._copies if role in update]
            if copies and isinstance(update, tuple):
                raise self.error(
                    f"{told} trains {shown(update)} together, and {copies[0]!r} is a copy; a copy "
                    "is an entry of its own"
                )
        if "student" not in roles:
            raise self.error(f"{told} leaves out the student, which is trained once a step")
        return updates

    def never_trained(self, updates: int) -> list[str]:
        """The roles with a learning rate that none of the first `updates` updates trains."""
        if self._trained is None:
            self.roles()
        left = dict.fromkeys(self._trained or ())
        for step in range(updates):
            for update in self.update_order(step):
                for role in trained_together(update):
                    left.pop(role, None)
            if not left:
                break
        return [*left]

    def train(self, step: TrainStep) -> dict[str, Tensor]:
        """The scalars to log of one update."""
        import torch

        update = f"{self.title}, update of {step.role!r} in step {step.index + 1}"
        with settings_kept() as changed, self._weights_stay(step, update), foreign(update):
            found = self.method.train(step)
            logs = dict(found) if isinstance(found, Mapping) else None
        if changed and not self._told:
            self._told = True
            say_once(f"{self.title} changed {', '.join(changed)} in train(), which is undone")
        if logs is None:
            raise self.error(
                f"train() returned {shown(found)}; it must be a mapping from names to scalar "
                "tensors, {} to log nothing"
            )
        for name, value in logs.items():
            where = f"train() returned {shown(name)}"
            if not isinstance(name, str):
                raise self.error(f"{where} as the name of a scalar; it must be a text")
            if not isinstance(value, torch.Tensor):
                raise self.error(f"{where}: {shown(value)}; it must be a tensor with one number")
            # a plan trains on the meta device
            empty = value.device.type == "meta" and str(step.rng.device) != "meta"
            if value.numel() != 1 or empty or value.is_complex():
                raise self.error(
                    f"{where}: a tensor of the shape {list(value.shape)} and type {value.dtype} on "
                    f"{value.device}; it must be one number on the networks' device or the CPU"
                )
        return logs

    @contextmanager
    def _weights_stay(self, step: TrainStep, update: str) -> Iterator[None]:
        """Refuses a method that changes the weights of a velocity network by itself: in a plan it
        cannot, a LoRA has them in common with others, and no checkpoint would hold those of a
        frozen one. (The weights of a factory's module, such as a critic's that are clipped, are
        its own.)"""
        if self._trained is None:
            self.roles()
        rule = (
            "only optimizers change weights; a role that takes over another's is declared as "
            "NetworkSpec(copy_of=...) and copied when update_order names it (plugins/README.md)"
        )
        watched = set() if self.planned else {*step.networks} - self._modules
        networks = {name: step.networks[name] for name in watched}
        before = {name: weight_versions(network) for name, network in networks.items()}
        try:
            yield
        except ForeignError as error:
            if cannot_write(error.__cause__):
                raise ForeignError(
                    f"{update}: it writes to the weights of a network; {rule}"
                ) from None
            raise
        for name, network in networks.items():
            if weight_versions(network) != before[name]:
                raise ForeignError(f"{update}: it changed the weights of {name!r}; {rule}")

    def state_dict(self) -> dict[str, Any]:
        """Its state as plain values, and tensors on the CPU; nothing where it has none."""
        if not isinstance(self.method, Stateful):
            return {}
        with foreign(f"{self.title}, state_dict()"):
            found = self.method.state_dict()
            state = dict(found) if isinstance(found, Mapping) else None
        if state is None:
            raise self.error(f"state_dict() returned {shown(found)}; it must be a mapping")
        try:
            plain: dict[str, Any] = _plain(state, "state_dict()")
        except RecursionError:
            raise self.error("state_dict() contains itself, or is nested too deep") from None
        except TypeError as error:
            raise self.error(
                f"{error}; a state is made of tensors, numbers, texts, lists and mappings"
            ) from None
        return plain

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give the method a state that it has had."""
        if not isinstance(self.method, Stateful):
            raise self.error("the checkpoint holds its state, and it has no load_state_dict()")
        with foreign(f"{self.title}, load_state_dict()"):
            self.method.load_state_dict(state)


def _plain(value: Any, path: str) -> Any:
    """A state as dictionaries, lists and tensors of the CPU.

    Raises:
        TypeError: where in it there is something else.
    """
    import torch

    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, list | tuple):
        return [_plain(one, f"{path}[{place}]") for place, one in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int, float):
                raise TypeError(f"{path} has the key {shown(key)}, which is no text and no number")
        return {key: _plain(one, f"{path}[{key!r}]") for key, one in value.items()}
    raise TypeError(f"{path} is {shown(value)}")
