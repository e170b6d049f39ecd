"""What `sample`, `stream` and `export` work with: a saved student, another code's weights, or the
teacher or initial student of a backbone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from salt_zoo.config.field_types import types_of_run
from salt_zoo.config.overrides import apply_overrides
from salt_zoo.core.base.errors import ZooError, did_you_mean
from salt_zoo.core.protocols import BackboneDefaults, Recognises
from salt_zoo.io.files.regular import expanded
from salt_zoo.plugin.manager import Zoo
from salt_zoo.training.students import RECORD, check_student

#: Whose network it is; `saved`: the weights are those of `--checkpoint`.
Whose = Literal["saved", "teacher", "student"]


@dataclass(frozen=True)
class Chosen:
    """A backbone as it is written, and the weights that its network has.

    Attributes:
        content: the backbone by name with its options beside it.
        where: where that is written, for messages.
        place: what `Backbone.load` is given; None for the backbone's own weights.
        remembered: how the student says that it is sampled (steps, sampler, timestep_shift).
    """

    content: dict[str, Any]
    where: str
    place: Path | None
    remembered: dict[str, Any] = field(default_factory=dict)


def choose(options: argparse.Namespace, zoo: Zoo, command: str, whose: Whose) -> Chosen:
    """What the options of `command` mean; `whose` network is taken without `--checkpoint`.

    Raises:
        ZooError: nothing is named, the weights are not there or fit no backbone, or several; or an
            option is of no use here.
    """
    if options.checkpoint is None:
        if not options.backbone:
            raise ZooError(_NOTHING[command])
        content = {"name": options.backbone} | ({"size": options.size} if options.size else {})
        chosen = Chosen(content, "--backbone", None)
    else:
        whose = "saved"
        student = saved_student(options.checkpoint)
        chosen = _saved(options, student) if student else _foreign(options, zoo, command)
    _refuse_unused(options, zoo, chosen, command, whose)
    return chosen


_STUDENT = "Give --checkpoint DIR_OR_FILE for a student"
_NOTHING = {
    "sample": f"what is to be sampled? {_STUDENT}, or for a teacher --backbone NAME --size NAME",
    "stream": f"what is to be streamed? {_STUDENT}, or for an untrained one --backbone "
    "self-forcing --size NAME",
}


def saved_student(given: Path) -> Path | None:
    """The folder of the student that `salt-zoo train` has saved: `given`, the student in the folder
    of a run, or where a `salt_zoo.json` lies; None where there is none."""
    if given.name == RECORD and given.is_file():
        return given.parent
    places = (given, given / "student")
    return next((place for place in places if (place / RECORD).is_file()), None)


def _saved(options: argparse.Namespace, student: Path) -> Chosen:
    if options.backbone or options.size:
        raise ZooError("--backbone and --size come from the checkpoint; omit them")
    path = check_student(student) / RECORD
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        content = dict(saved["run"]["backbone"])
        if not isinstance(content["name"], str):
            raise TypeError("the backbone's name is no text")
        remembered = dict(saved.get("sampling", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ZooError(
            f"{path}: damaged ({type(error).__name__}: {' '.join(str(error).split())[:100]}); "
            "save the student again by running its 'salt-zoo train' command once more"
        ) from None
    return Chosen(content, f"{path}: backbone", student, remembered)


def _foreign(options: argparse.Namespace, zoo: Zoo, command: str) -> Chosen:
    """Another code's weights, under the backbone that they fit."""
    place = expanded(options.checkpoint)
    at = f"--checkpoint {options.checkpoint}"
    if not place.exists():
        raise ZooError(f"{at}: there is no such folder or file")
    fitting: dict[str, dict[str, Any]] = {}
    refusal: ZooError | None = None
    for name in [options.backbone] if options.backbone else [one.name for one in zoo.backbones]:
        backbone = zoo.backbones[name].load()
        if not isinstance(backbone, Recognises):
            continue
        written = {"name": name} | ({"size": options.size} if options.size else {})
        wanted = with_overrides(written, options.overrides, zoo).get("size")
        try:
            fitting[name] = written | backbone.recognise(place, zoo, wanted)
        except ZooError as error:
            refusal = refusal or error
    if not fitting:
        saved = "no student was saved there (it has no salt_zoo.json); " if place.is_dir() else ""
        why = str(refusal) if refusal else "no backbone reads the weights of other codes"
        raise ZooError(f"{at}: {saved}{why.removeprefix(f'{place}: ')}")
    if command == "stream":  # a bidirectional network has nothing to show before all is done
        streams = {n: c for n, c in fitting.items() if zoo.backbones[n].load().streams}
        fitting = streams or fitting
    if command != "export" and len(fitting) > 1:
        size = next(iter(fitting.values())).get("size")
        names = " or ".join(f"--backbone {name}" for name in fitting)
        raise ZooError(
            f"{at}: weights of the size {size!r}, but they do not tell of which kind of network; "
            f"add {names} (as it was trained: block by block, or all frames at once)"
        )
    return Chosen(next(iter(fitting.values())), "--checkpoint", place)


def with_overrides(content: Mapping[str, Any], overrides: list[str], zoo: Zoo) -> dict[str, Any]:
    """The backbone as `--set backbone.a.b=VALUE` changes it."""
    changed = apply_overrides({"backbone": dict(content)}, overrides, types_of_run(zoo))
    for key in changed:
        if key != "backbone":
            raise ZooError(f"--set {key}: unknown key; {did_you_mean(key, ['backbone'])}")
    found = changed["backbone"]
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise ZooError("--set backbone: set its options one by one, as in backbone.size=digits")
    return found


def _refuse_unused(
    options: argparse.Namespace, zoo: Zoo, chosen: Chosen, command: str, whose: Whose
) -> None:
    """An option that would change nothing is a mistake about what the command does."""
    backbone = zoo.backbones[chosen.content["name"]].load()
    if not (isinstance(backbone, type) and issubclass(backbone, BackboneDefaults)):
        return  # a function that makes one
    unused = backbone.unused
    passed_over = unused.get("exported" if command == "export" else whose, ())
    for text in options.overrides:
        words = text.partition("=")[0].split(".")
        if len(words) < 2 or words[0].strip() != "backbone" or words[1].strip() not in passed_over:
            continue
        key = words[1].strip()
        if whose == "saved":
            raise ZooError(
                f"--set backbone.{key}: {command} does not use it, because the network's weights "
                "are those of --checkpoint; leave it out"
            )
        network = "the teacher" if whose == "teacher" else "the initial student"
        raise ZooError(
            f"--set backbone.{key}: {command} without --checkpoint takes {network} of the backbone "
            f"{chosen.content['name']!r}, which does not use it; for a student give its weights: "
            f"{command} --checkpoint DIR_OR_FILE --backbone {chosen.content['name']}"
        )
