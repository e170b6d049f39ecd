"""The jobs of a study, which are independent of each other: train and measure an arm, or measure a
baseline.

A job's folder is named by the digest of all that decides its network: for an arm what can change
the trained weights and nothing else, for a baseline its weights. In it lie the student, the
record of the training, and the cells that were measured (`benchmarks.evaluate.cells`), each keyed
by what decides it. What a job lacks is made; what is there is never made again.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluate.cells import Cell
from benchmarks.evaluate.evaluator import Measurer
from benchmarks.runner.job_files import STUDENT, TRAINED, read_training, set_right
from benchmarks.runner.provenance import commit
from salt_zoo import TRAINING_VERSION
from salt_zoo.config.identity import identity
from salt_zoo.config.run import Resolved, resolve
from salt_zoo.core.precision import ResolvedPrecision, resolve_precision, with_precision
from salt_zoo.io.distributed import on_main
from salt_zoo.io.one_writer import one_writer
from salt_zoo.io.printing import say_once
from salt_zoo.io.seals import Damaged, write_sealed
from salt_zoo.io.storage import digest
from salt_zoo.plugin.manager import Zoo
from salt_zoo.training.launch import train
from salt_zoo.training.students import save_student

#: Seconds that a job waits for another process in its folder: a worker outlives a killed study by
#: one or two.
PATIENCE = 30.0

#: Called with (updates done, updates in all, what is being done).
Progress = Callable[[int, int, str], None]


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


def run_job(job: Job, zoo: Zoo, device: str, progress: Progress) -> dict[str, str]:
    """Do what a job lacks; does nothing if it is done.

    Of a distributed run all processes train; the first one alone writes and measures.

    Returns by label why metrics could not be measured; all else was.
    """
    from salt_zoo.training.devices import find_device

    if on_main(lambda: job.done):
        return {}
    if find_device(device).type != job.device:
        raise ValueError(f"{job.folder.name} was planned for {job.device}, not for {device}")
    gc.collect()  # the networks of the job before refer to themselves in circles
    with ExitStack() as held:
        on_main(lambda: held.enter_context(one_writer(job.folder, PATIENCE)))
        for line in on_main(lambda: set_right(job)):
            say_once(line)
        resolved = resolve(job.content, zoo, job.label)
        stamp = _stamp(job)
        trained: tuple[Any, Any] | None = None
        if not on_main(lambda: job.trained):
            trained = _train(job, resolved, zoo, device, progress, stamp)

        def finish() -> dict[str, str]:
            if not job.keep_checkpoints:
                shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
            progress(1, 1, "measuring")
            if trained is None:
                name = resolved.config.backbone["name"]
                backbone: Any = zoo.backbones.create(name, resolved.backbone, zoo)
                backbone.to(find_device(device))
                network = _network(job, backbone)
            else:
                network, backbone = trained
            dataset = zoo.datasets.create(resolved.config.dataset["name"], resolved.dataset, zoo)
            measurer = Measurer(network, backbone, dataset, zoo, job.batch_size, job.folder, stamp)
            for cell in job.cells:
                measurer.fill(cell)
            return dict(measurer.broken)

        return on_main(finish)


def _network(job: Job, backbone: Any) -> Any:
    """The network of a baseline (None for real videos), or the student of a training, in the
    precision of the run."""
    if job.label == "real":
        return None
    if job.seed is None:
        network = backbone.network("teacher" if job.label.startswith("teacher") else "student")
    else:
        network = backbone.load(job.folder / STUDENT).eval()
    return with_precision(network, job.precision, backbone.device, frozen=True)


def _train(
    job: Job,
    resolved: Resolved,
    zoo: Zoo,
    device: str,
    progress: Progress,
    stamp: Mapping[str, Any],
) -> tuple[Any, Any] | None:
    """Train, or resume, and save; returns the student and its backbone, or None where
    its passes take several processes, or it is offloaded."""

    from salt_zoo.training.sharding import is_sharded  # imports torch

    def update(step: int, updates: int, logs: Mapping[str, float]) -> None:
        progress(step, updates, "training")

    trainer = train(resolved, job.folder, zoo, device, update)

    save_student(trainer, resolved, job.folder / STUDENT)

    def save() -> None:
        record = {"cost": trainer.cost(), "curve": trainer.history, "stamp": stamp}
        write_sealed(job.folder / TRAINED, record)

    on_main(save)
    if trainer.layout.together or is_sharded(trainer.networks.eval_network):
        return None
    return trainer.networks.eval_network, trainer.backbone


def _stamp(job: Job) -> dict[str, Any]:
    """What is recorded of the code and the machine that do a job."""
    import torch

    stamp = {"commit": commit(), "device": job.device, "precision": job.precision}
    if job.device == "cuda":
        stamp["gpu"] = torch.cuda.get_device_name()
    return stamp | {"torch": torch.__version__}
