"""A job of a study, as plain values, and what decides the network that it makes.

Jobs are independent of each other: train and measure an arm, or measure a baseline. A job's folder
is named by the digest of all that decides its network: for an arm what can change the trained
weights and nothing else, for a baseline its weights. In it lie the student, the record of the
training, and the cells that were measured (`benchmarks.evaluate.cells`), each keyed by what decides
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluate.cells import Cell
from benchmarks.runner.jobs.record import TRAINED, read_training
from salt_zoo import TRAINING_VERSION
from salt_zoo.config.identity import identity
from salt_zoo.config.run import Resolved
from salt_zoo.core.networks.precision import ResolvedPrecision, resolve_precision
from salt_zoo.io.files.seals import Damaged
from salt_zoo.io.files.storage import digest


@dataclass(frozen=True)
class Job:
    """One folder to fill: an arm at one seed, or a baseline (`seed` is None).

    It holds plain values only, so that it can be sent to a process that has yet to load plugins.
    """

    label: str
    seed: int | None
    content: Mapping[str, Any]  # the resolved run; of a baseline, that of any arm
    cells: tuple[Cell, ...]
    batch_size: int  # of videos that are sampled at a time
    device: str  # its type: cpu or cuda
    folder: Path
    keep_checkpoints: bool = False  # of a training that has ended

    @classmethod
    def of(
        cls,
        label: str,
        seed: int | None,
        resolved: Resolved,
        cells: tuple[Cell, ...],
        batch_size: int,
        origin: Origin,
        device: str,
        out: Path,
        keep_checkpoints: bool = False,
    ) -> Job:
        """The job and its folder."""
        content = resolved.plain()
        key = network_key(content, seed is not None, origin, device)
        name = f"{label}-{key}" if seed is None else f"{label}-seed{seed}-{key}"
        folder = out / "arms" / name
        return cls(label, seed, content, cells, batch_size, device, folder, keep_checkpoints)

    @property
    def precision(self) -> ResolvedPrecision:
        """In which the networks of this job compute."""
        return resolve_precision(self.content["training"]["precision"], self.device)

    @property
    def trained(self) -> bool:
        """Whether there is a network to measure."""
        if self.seed is None:
            return True
        try:
            return (self.folder / TRAINED).exists() and bool(read_training(self.folder))
        except Damaged:
            return False

    @property
    def done(self) -> bool:
        return self.trained and not any(cell.missing(self.folder) for cell in self.cells)


@dataclass(frozen=True)
class Origin:
    """What a network comes from beside its configuration: `inputs` are digests of the weights and
    data, and of files that the method names; `parts` the versions of the code
    (`salt_zoo.plugin.versions`). A baseline depends on those of `backbone` and data alone."""

    inputs: Mapping[str, Any]
    parts: Mapping[str, Any]
    of_backbone: Mapping[str, Any]


def network_key(content: Mapping[str, Any], is_trained: bool, origin: Origin, device: str) -> str:
    """A digest of all that decides the network of a resolved run on a type of device."""
    precision = resolve_precision(content["training"]["precision"], device)
    decides = identity(content, precision)
    if not is_trained:  # a baseline does not depend on any training
        decides = {**{key: content[key] for key in ("backbone", "dataset")}, "precision": precision}
    parts, inputs = origin.parts, origin.inputs
    if not is_trained:
        parts = origin.of_backbone
        inputs = {key: digests for key, digests in inputs.items() if key != "method"}
    return digest([TRAINING_VERSION, decides, inputs, parts, device])
