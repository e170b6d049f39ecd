"""Every hook that a plugin may implement; this file is their documentation.

A plugin is a module (or any object) with functions marked by `salt_zoo.hookimpl`. It is found by
the entry-point group `salt_zoo`, or named on the command line with `-p module` or `-p file.py`.
An implementation may leave out arguments that it does not need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from salt_zoo.plugin.registration.registries import Registries

hookspec = pluggy.HookspecMarker("salt_zoo")


@hookspec
def register(zoo: Registries) -> None:
    """Register parts: `zoo.methods.add(name, target, summary)`, and likewise on `zoo.backbones`,
    `zoo.sizes`, `zoo.memories`, `zoo.objectives`, `zoo.metrics`, `zoo.datasets`, `zoo.recipes`.

    Called once, before anything else. A plugin that raises here, or that registers a name which is
    taken, is listed as broken and all that it registered is forgotten; others go on.
    """


@hookspec
def training_started(config: Mapping[str, Any], folder: Path, step: int) -> None:
    """A training begins or, with `step` > 0, goes on. `config` is the resolved configuration.

    Called in the main process only, as are the other lifecycle hooks.
    """


@hookspec
def step_finished(step: int, logs: Mapping[str, float]) -> None:
    """`step` student updates are done. `logs` holds the scalars of the methods, as Python numbers;
    on CUDA it is filled every `training.log_every` steps and empty between them."""


@hookspec
def checkpoint_saved(folder: Path, step: int) -> None:
    """A complete checkpoint lies in `folder`."""


@hookspec
def study_finished(results: Mapping[str, Any], folder: Path) -> None:
    """A study has ended and `results` (the content of results.json) lies in `folder`."""


@hookspec
def report_sections(results: Mapping[str, Any], folder: Path) -> Sequence[tuple[str, str]]:
    """More sections for the report: `(title, text)` pairs; the text is Markdown's paragraphs and
    shown escaped, so that nothing in it can act on the page."""
    return []
