"""What a training computes: passes of each network, counted as they happen, by kind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.protocols import FeatureExtractor
from salt_zoo.costs.module_passes import ModuleMeter, ModulePass

#: The arguments of a `salt_zoo.core.protocols.VelocityNetwork`, in order.
_ARGUMENTS = ("x", "t", "condition", "memory")


@dataclass(frozen=True)
class Pass:
    """All that the FLOPs of a network's pass over one video depend on.

    Attributes:
        frames: of a pass without a memory. None for a block that is given one: it takes its share
            of a video that is made block by block.
        times: dimensions of its times: 1 is one a video, 2 one a frame.
        weights, inputs: whether the gradient of the weights, and of the input, was recorded.
        depth: the share of the network's blocks after which it ends, below 1 for `features`.
        options: its further arguments.
    """

    frames: int | None
    times: int = 1
    weights: bool = False
    inputs: bool = False
    depth: float = 1.0
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def recorded(self) -> bool:
        """Whether there is a backward pass."""
        return self.weights or self.inputs


#: Of a velocity network, or of any other module.
AnyPass = Pass | ModulePass


class PassCounter:
    """Counts, per role, the passes of networks, in units of one whole video.

    A pass over a block of frames counts by its share of the frames; guidance doubles the batch and
    so counts twice. Passes that a pass makes of the same network belong to it.

    Args:
        networks: by role.
        frames: of a whole video.
        modules: roles that are no velocity networks. Their passes count by the rows of the first
            tensor that they are given: one for each video, if it has a row for each.

    Attributes:
        passes: per role, of each kind.
        paused: nothing is counted: quality measured during training is no cost of the method.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], frames: int, modules: Collection[str] = ()
    ) -> None:
        self.passes: dict[str, dict[AnyPass, float]] = {}
        self.paused = False
        self._undo: list[Callable[[], None]] = []
        for role, network in networks.items():
            self.passes[role] = {}
            if role in modules:
                self._watch_module(role, network)
            else:
                self._watch(role, network, frames)

    def remove(self) -> None:
        """Count no further; the counts stay."""
        for undo in self._undo:
            undo()

    @property
    def counts(self) -> dict[str, dict[str, float]]:
        """Per role the passes `forward`, and those recorded for a gradient, `backward`; one that
        ends inside the network counts by its depth."""
        return {role: in_videos(passes) for role, passes in self.passes.items()}

    def state(self) -> dict[str, Any]:
        """What has been counted, as plain values for a checkpoint."""
        return {
            role: [[asdict(kind), number] for kind, number in passes.items()]
            for role, passes in self.passes.items()
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`.

        Raises:
            ZooError: it is one of an older version.
        """
        for role, passes in self.passes.items():
            passes.clear()
            for entry in state[role]:
                if not isinstance(entry, list):
                    raise ZooError(
                        "the checkpoint was made by an older version of Salt Zoo, which counted "
                        "passes differently; choose another folder"
                    )
                if "options" not in entry[0]:
                    passes[ModulePass(**entry[0])] = entry[1]
                    continue
                options = tuple((name, value) for name, value in entry[0].pop("options"))
                passes[Pass(**entry[0], options=options)] = entry[1]

    def scale(self, factor: float) -> None:
        """Count what was counted so far by another factor: of a run that was split over another
        number of processes."""
        if factor != 1:
            for passes in self.passes.values():
                for kind in passes:
                    passes[kind] *= factor

    def _watch_module(self, role: str, watched: nn.Module) -> None:
        meter, passes = ModuleMeter(role, watched), self.passes[role]
        level = 0  # of passes in passes, and of those that the meter makes

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal level
            level += 1
            if level == 1 and not self.paused:
                _is_itself(role, watched, module)
                kind, rows = meter.measure(args, kwargs)
                passes[kind] = passes.get(kind, 0.0) + rows

        def after(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal level
            level -= 1

        self._undo += [
            watched.register_forward_pre_hook(before, with_kwargs=True).remove,
            watched.register_forward_hook(after, always_call=True).remove,
        ]

    def _watch(self, role: str, network: Any, frames: int) -> None:
        passes = self.passes[role]
        level = 0  # of passes in passes
        depth = 1.0  # at which the pass that is under way ends
        weights = list(network.parameters())

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal level
            level += 1
            if level == 1 and not self.paused:
                _is_itself(role, network, module)
                given = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
                x: Tensor = given["x"]
                kind = _kind(weights, given, depth)
                videos = x.shape[0] * x.shape[2] / frames
                passes[kind] = passes.get(kind, 0.0) + videos

        def after(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal level
            level -= 1

        self._undo += [
            network.register_forward_pre_hook(before, with_kwargs=True).remove,
            network.register_forward_hook(after, always_call=True).remove,
        ]
        if not isinstance(network, FeatureExtractor):
            return
        features = network.features

        @functools.wraps(features)
        def ending(x: Tensor, t: Tensor, condition: Any, share: float) -> Tensor:
            nonlocal depth
            depth = share
            try:
                return features(x, t, condition, share)
            finally:
                depth = 1.0

        network.features = ending  # type: ignore[method-assign, assignment]
        self._undo.append(lambda: setattr(network, "features", features))


def _is_itself(role: str, network: nn.Module, passed: nn.Module) -> None:
    """A deep copy has the hooks of its original, whose passes it would add to.

    Raises:
        RuntimeError: a copy is passed.
    """
    if passed is not network:
        raise RuntimeError(
            f"role {role!r}: a copy of its network was passed, which nobody counts, saves or plans;"
            " declare it as a role of its own, NetworkSpec(copy_of=...) (plugins/README.md)"
        )


def in_videos(passes: Mapping[AnyPass, float]) -> dict[str, float]:
    """All kinds together: passes `forward` and `backward`, in whole videos and networks."""
    return {
        "forward": float(sum(n * kind.depth for kind, n in passes.items())),
        "backward": float(sum(n * kind.depth for kind, n in passes.items() if kind.recorded)),
    }


def _kind(weights: list[nn.Parameter], given: dict[str, Any], depth: float) -> Pass:
    x, t = given["x"], given["t"]
    recorded = torch.is_grad_enabled()
    options = {name: value for name, value in given.items() if name not in _ARGUMENTS}
    return Pass(
        frames=x.shape[2] if given.get("memory") is None else None,
        times=t.ndim,
        weights=recorded and any(weight.requires_grad for weight in weights),
        inputs=recorded and x.requires_grad,
        depth=depth,
        options=tuple(sorted(options.items())),
    )
