"""The work of a study in pieces that can be done apart: train and measure an arm, or measure a
reference row. Each writes a folder named by the digest of all that decides it, once it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import Measurer
from benchmarks.provenance import commit
from benchmarks.records import FULL_REFERENCES, ArmCost, Long, Measured
from benchmarks.study import EvaluationConfig
from salt_zoo.plugins import Zoo
from salt_zoo.run import Resolved, resolve, save_student, train
from salt_zoo.storage import atomic_folder, digest, write_json

DONE = "measured.json"

#: Called with (updates done, updates in all, what is being done).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """One folder to fill: an arm at one seed, or a reference row (`seed` is None).

    It holds plain values only, so that it can be sent to a process that has yet to load plugins.
    """

    label: str
    seed: int | None
    content: Mapping[str, Any]  # the resolved run; of a reference row, that of any arm
    evaluation: EvaluationConfig
    folder: Path

    @classmethod
    def of(
        cls,
        label: str,
        seed: int | None,
        resolved: Resolved,
        evaluation: EvaluationConfig,
        inputs: Mapping[str, Any],
        out: Path,
    ) -> Job:
        """The job and its folder; `inputs` are digests of the weights and data it starts from."""
        content = resolved.plain()
        decides = dict(content)
        decides.pop("quality")  # looks on, and changes nothing
        if seed is None:  # a reference row does not depend on any training
            decides = {key: content[key] for key in ("backbone", "dataset")}
        key = digest([decides, evaluation.plain(), inputs, label if seed is None else ""])
        name = f"{label}-{key}" if seed is None else f"{label}-seed{seed}-{key}"
        return cls(label, seed, content, evaluation, out / "arms" / name)

    @property
    def done(self) -> bool:
        return (self.folder / DONE).is_file()


def run_job(job: Job, zoo: Zoo, device: str, progress: Progress) -> None:
    """Do a job, or go on with it; does nothing if it is done."""
    if job.done:
        return
    if job.seed is None:
        measured, cost = _reference(job, zoo, device), None
    else:
        measured, cost = _arm(job, zoo, device, progress)
    with atomic_folder(job.folder / "scores") as draft:
        for index, one in enumerate(measured):
            arrays: dict[str, Any] = {"pixels": one.pixels, **one.rows}
            np.savez_compressed(draft / f"{index}.npz", **arrays)
            if one.long:
                arrays = {"pixels": one.long.pixels, **one.long.rows}
                np.savez_compressed(draft / f"{index}-long.npz", **arrays)
    write_json(
        job.folder / DONE,
        {
            "measured": [
                {**_facts(one), "long": _facts(one.long) if one.long else None} for one in measured
            ],
            "cost": vars(cost) if cost else None,
            "commit": commit(),
        },
    )


def read_job(job: Job) -> tuple[list[Measured], ArmCost | None]:
    """What a done job found."""
    content = json.loads((job.folder / DONE).read_text(encoding="utf-8"))
    measured = []
    for index, facts in enumerate(content["measured"]):
        scores = job.folder / "scores"
        long = facts.get("long")  # older folders lack it
        if long:
            long = Long(**long, **_arrays(scores / f"{index}-long.npz"))
        # the label is this study's; a reused folder may have had another
        facts = {**facts, "arm": job.label, "long": long}
        measured.append(Measured(**facts, **_arrays(scores / f"{index}.npz")))
    cost = ArmCost(**{**content["cost"], "arm": job.label}) if content["cost"] else None
    return measured, cost


def _facts(one: Measured | Long) -> dict[str, Any]:
    """All but the arrays."""
    return {k: v for k, v in vars(one).items() if k not in ("rows", "pixels", "long")}


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        rows = {name: arrays[name] for name in arrays.files if name != "pixels"}
        return {"rows": rows, "pixels": arrays["pixels"]}


def commit_of(job: Job) -> str:
    """The commit of the code that did a job, which may be older than the one that reports it."""
    return str(json.loads((job.folder / DONE).read_text(encoding="utf-8"))["commit"])


def _arm(job: Job, zoo: Zoo, device: str, progress: Progress) -> tuple[list[Measured], ArmCost]:
    def update(step: int, updates: int, logs: Mapping[str, float]) -> None:
        progress(step, updates, "training")

    assert job.seed is not None
    resolved = resolve(job.content, zoo, job.label)
    trainer = train(resolved, job.folder, zoo, device, update)
    progress(1, 1, "measuring")
    save_student(trainer, resolved, job.folder / "student")
    cost = trainer.cost()
    measurer = Measurer(job.label, job.seed, resolved, job.evaluation, trainer.backbone, zoo)
    return measurer.grid(trainer.networks.result), ArmCost(
        arm=job.label,
        seed=job.seed,
        updates=cost["updates"],
        passes=cost["passes"],
        flops=cost["flops"],
        seconds=cost["seconds"],
        curve=trainer.history,
    )


def _reference(job: Job, zoo: Zoo, device: str) -> list[Measured]:
    from salt_zoo.devices import find_device

    resolved, teacher = resolve(job.content, zoo, job.label), job.evaluation.teacher
    config = resolved.config
    backbone = zoo.backbones.create(config.backbone["name"], resolved.backbone, zoo)
    backbone.to(find_device(device))
    measurer = Measurer(job.label, None, resolved, job.evaluation, backbone, zoo)
    if job.label == "real":
        return [measurer.real()]
    network = backbone.network("teacher" if job.label.startswith("teacher") else "student")
    if job.label in FULL_REFERENCES:
        return [measurer.sampled(network, teacher.steps, "ode", teacher.guidance_scale)]
    if job.label.endswith("-guided"):
        return measurer.grid(network, teacher.guidance_scale, own=False)
    return measurer.grid(network)
