"""Doing a job: what it lacks is made; what is there is never made again."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from benchmarks.evaluate.evaluator import Measurer
from benchmarks.runner.jobs.job import Job
from benchmarks.runner.jobs.provenance import commit
from benchmarks.runner.jobs.record import STUDENT, TRAINED, read_training
from salt_zoo.config.run import Resolved, resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.methods.attention import NATIVE, attention_use, choose_attention
from salt_zoo.core.networks.precision import with_precision
from salt_zoo.io.distributed import on_main
from salt_zoo.io.files.one_writer import one_writer
from salt_zoo.io.files.seals import Damaged, write_sealed
from salt_zoo.io.printing import say_once
from salt_zoo.plugin.manager import Zoo
from salt_zoo.training.data.origin import make_bound
from salt_zoo.training.launch import train
from salt_zoo.training.students import check_student, save_student

#: Seconds that a job waits for another process in its folder: a worker outlives a killed study by
#: one or two.
PATIENCE = 30.0

#: Called with (updates done, updates in all, what is being done).
Progress = Callable[[int, int, str], None]


def run_next_job(job: Job, zoo: Zoo, device: str, progress: Progress) -> dict[str, str]:
    """`run_job` after another one in this process, of which no network is left then."""
    gc.collect()  # they refer to themselves in circles
    return run_job(job, zoo, device, progress)


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
    with ExitStack() as held:
        on_main(lambda: held.enter_context(one_writer(job.folder, PATIENCE)))
        for line in on_main(lambda: set_right(job)):
            say_once(line)
        resolved = resolve(job.content, zoo, job.label)
        stamp = _stamp(job)
        trained: tuple[Any, Any, Any] | None = None
        if not on_main(lambda: job.trained):
            trained = _train(job, resolved, zoo, device, progress, stamp)

        def finish() -> dict[str, str]:
            if not job.keep_checkpoints:
                shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
            progress(1, 1, "measuring")
            if trained is None:
                backbone, dataset = make_bound(resolved, zoo)
                backbone.to(find_device(device))
                network = _network(job, backbone)
            else:
                network, backbone, dataset = trained
            measurer = Measurer(network, backbone, dataset, zoo, job.batch_size, job.folder, stamp)
            for cell in job.cells:
                measurer.fill(cell)
            return dict(measurer.broken)

        return on_main(finish)


def set_right(job: Job) -> list[str]:
    """Remove the files of a job that are not as they were written, and return a line about each;
    what they held is then made again."""
    damaged = [damage for cell in job.cells for damage in cell.damaged(job.folder)]
    record = job.folder / TRAINED
    if job.seed is not None and os.path.lexists(record):
        try:
            read_training(job.folder)
        except Damaged as found:
            damaged.append(found)
        else:
            if damaged or not job.done:  # the student is needed once more
                try:
                    check_student(job.folder / STUDENT)
                except ZooError as error:
                    place = str(error).partition("; ")[0]
                    damaged.append(Damaged(record, f"its student is not whole: {place}"))
    for damage in damaged:
        if damage.path.is_dir() and not damage.path.is_symlink():
            shutil.rmtree(damage.path)
        else:
            damage.path.unlink(missing_ok=True)
    return [f"{damage.path}: damaged ({damage.why}); it is made again" for damage in damaged]


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
) -> tuple[Any, Any, Any] | None:
    """Train, or resume, and save; returns the student, its backbone and its data, or None where
    its passes take several processes, or it is offloaded."""

    from salt_zoo.training.state.sharding import is_sharded  # imports torch

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
    network = trainer.networks.eval_network
    if resolved.config.execution.attention != NATIVE:  # as in all else that is measured
        use = attention_use(resolved.config.training.precision, job.device, backward=False)
        choose_attention(network, NATIVE, "execution.attention", use)
    return network, trainer.backbone, trainer.dataset


def _stamp(job: Job) -> dict[str, Any]:
    """What is recorded of the code and the machine that do a job."""
    import torch

    stamp = {"commit": commit(), "device": job.device, "precision": job.precision}
    if job.device == "cuda":
        stamp["gpu"] = torch.cuda.get_device_name()
    return stamp | {"torch": torch.__version__}
