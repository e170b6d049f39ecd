"""Selecting one Wan transformer from a checkpoint that may hold several (EMA, critic, teacher)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.printing import say
from salt_zoo_wan.checkpoint.formats import WRAPPERS, without_wrappers
from salt_zoo_wan.checkpoint.identify import identify_entries, is_lora, shown

#: A generator in a checkpoint of Self Forcing, Causal Forcing, LongLive or Salt.
Entry = Literal["generator_ema", "generator"]

#: Every Wan has this tensor, whatever stands before its name.
_ANCHOR = ("patch_embedding", "weight")
_CRITIC = re.compile(
    r"critic|fake|real_score|discriminator|guidance_model|(^|[._])(disc|reward)([._]|$)"
)
_TEACHER = re.compile(r"teacher|(^|[._])(ref|reference|score)([._]|$)")
_STUDENT = re.compile(r"generator|student|feedforward|distilled")
_AVERAGE = re.compile(
    r"(^|_)(ema\d*|averaged?|swa|polyak|shadow)(_|$)|(^|_)avg_(model|weights|params|state)"
)
#: Averages of others than the generator.
_NOT_ITS_AVERAGE = re.compile(f"{_CRITIC.pattern}|{_TEACHER.pattern}|optim")
#: Entries in entries; a pickle may even hold itself.
_DEEPEST = 8


@dataclass
class _Network:
    """A transformer and what it is, as the words before its names tell."""

    label: str
    #: By its bare name: what stood there (a tensor, or a mistake), under which name.
    content: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)

    @property
    def rank(self) -> str:
        words = self.label.lower()
        for name, pattern in (("critic", _CRITIC), ("teacher", _TEACHER)):
            if pattern.search(words):
                return name
        if any(map(_AVERAGE.search, words.split("."))):
            return "average"
        return "student" if _STUDENT.search(words) else "other"


def select_transformer(
    content: Mapping[str, Any], named: str = "the weights", entry: Entry | None = None
) -> dict[str, Tensor]:
    """The state dict of one transformer of a checkpoint, without prefixes.

    Of several the average is taken, else a student or generator, never a critic or a teacher that
    stands beside others; a line on stderr says so where weights beside an average are left.

    Args:
        content: tensors by name, or entries (of entries) that hold them.
        named: what messages call it.
        entry: which generator; None chooses as above.

    Raises:
        ZooError: there is none, or several of which none is the one to be taken.
    """
    leaves = list(_leaves(content))
    networks = _networks(leaves)
    if not networks:
        if entry:
            raise ZooError(_no_entry(content, networks, named, entry))
        return _other(content, leaves, named)
    chosen = _chosen(networks, content, leaves, named, entry)
    state: dict[str, Tensor] = {}
    for name, found in chosen.content.items():
        for full, value in found:
            is_tensor = isinstance(value, Tensor)
            if "." not in name and (not is_tensor or value.ndim == 0):
                continue  # a step, a configuration: every tensor of Wan that counts has dimensions
            if not is_tensor:
                raise ZooError(f"{named}: {full!r} is a {type(value).__name__}, not a tensor")
            if name in state:
                raise ZooError(f"{named}: holds {name!r} twice, with and without a prefix")
            state[name] = value
    return state


#: Where something lies: the entries that lead to it, then its name's words; and what it is.
_Leaf = tuple[tuple[str, ...], str, Any]


def _leaves(content: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[_Leaf]:
    for key, value in content.items():
        if not isinstance(key, str):
            continue  # an optimizer's numbers
        if isinstance(value, Mapping):
            if len(at) < _DEEPEST:
                yield from _leaves(value, (*at, key))
        else:
            yield at, key, value


def _words(name: str) -> tuple[str, ...]:
    """A name's words without what wrappers put between them."""
    return tuple(word for word in name.split(".") if word not in WRAPPERS)


def _networks(leaves: list[_Leaf]) -> list[_Network]:
    """Every transformer, each with all that lies below the beginning of its names."""
    roots: dict[tuple[str, ...], dict[tuple[str, ...], _Network]] = {}
    for at, name, _ in leaves:
        words = _words(name)
        if words[-2:] == _ANCHOR:
            before = words[:-2]
            label = ".".join(word for word in (*at, *before) if word not in WRAPPERS)
            roots.setdefault(at, {}).setdefault(before, _Network(label))
    for at, name, value in leaves:
        words = _words(name)
        below = roots.get(at, {})
        # the longest beginning owns it: a critic may lie below a generator's own names
        starts = (words[:n] for n in range(len(words) - 1, -1, -1))
        start: tuple[str, ...] | None = next((one for one in starts if one in below), None)
        if start is not None:
            bare = without_wrappers(".".join(words[len(start) :]))
            below[start].content.setdefault(bare, []).append((name, value))
    return [network for below in roots.values() for network in below.values()]


def _chosen(
    networks: list[_Network],
    content: Mapping[str, Any],
    leaves: list[_Leaf],
    named: str,
    entry: Entry | None,
) -> _Network:
    if entry:
        wanted = [one for one in networks if entry in one.label.split(".")]
        if not wanted:
            raise ZooError(_no_entry(content, networks, named, entry))
        return _only(wanted, named)
    ranked: dict[str, list[_Network]] = {}
    for one in networks:
        ranked.setdefault(one.rank, []).append(one)
    averages = ranked.get("average", [])
    students, others = ranked.get("student", []), ranked.get("other", [])
    if not (averages or students or others):
        if teachers := ranked.get("teacher"):
            return _only(teachers, named)
        labels = shown(one.label for one in ranked["critic"])
        raise ZooError(f"{named}: a critic, not a generator ({labels})")
    own = [one for one in averages if _STUDENT.search(one.label.lower())]
    chosen = _only(own or averages or students or others, named)
    _refuse_lora(chosen, leaves, named)
    if averages:
        if left := [one.label for one in (*students, *others)]:
            _say(f"note: {named}: the average {chosen.label!r} is taken, not {_labels(left)}")
    elif lost := _nameless_average(leaves):
        raise ZooError(
            f"{named}: beside {chosen.label or 'the weights'!r} it holds an average ({lost!r}) "
            "whose tensors have other names or none; save the average by Wan's names, or the raw "
            "weights alone"
        )
    return chosen


def _only(networks: list[_Network], named: str) -> _Network:
    if len(networks) > 1:
        labels = shown(one.label or "without a prefix" for one in networks)
        raise ZooError(
            f"{named}: holds {len(networks)} transformers ({labels}), and nothing says which "
            "one to use; save that one alone"
        )
    return networks[0]


def _labels(labels: list[str]) -> str:
    return shown(label or "the weights beside it" for label in labels)


def _refuse_lora(chosen: _Network, leaves: list[_Leaf], named: str) -> None:
    """A LoRA beside a generator is not in it, as LongLive's `generator_lora` is not."""
    loras = dict.fromkeys(
        word
        for at, name, _ in leaves
        for word in (*at, *name.split(".")[:1])
        if is_lora(word) and word not in chosen.label
    )
    if loras:
        label = repr(chosen.label) if chosen.label else "the weights"
        raise ZooError(
            f"{named}: beside {label} it holds a LoRA that is not merged into it "
            f"({shown(loras)}); merge it first, or save {label} alone"
        )


def _nameless_average(leaves: list[_Leaf]) -> str | None:
    """The entry of an average whose tensors have no names of a Wan (a list, names without dots)."""
    for at, name, value in leaves:
        values = value if isinstance(value, list | tuple) else [value]
        if not any(isinstance(one, Tensor) and one.ndim for one in values):
            continue
        path = (*at, *name.split("."))
        if any(map(_NOT_ITS_AVERAGE.search, path)):
            continue
        for word in path[:3]:
            if _AVERAGE.search(word.lower()):
                return word
    return None


def _no_entry(
    content: Mapping[str, Any], networks: list[_Network], named: str, entry: Entry
) -> str:
    groups = [str(key) for key, value in content.items() if isinstance(value, Mapping) and value]
    others = shown(groups or [one.label for one in networks if one.label])
    return (
        f"{named}: has no {entry!r} but {others or 'tensors without an entry'}; choose what it has"
    )


def _other(content: Mapping[str, Any], leaves: list[_Leaf], named: str) -> dict[str, Tensor]:
    """The tensors of a file without a transformer, for a message that says what they are."""
    _refuse_odd_names(content, named)
    state = {}
    for at, name, value in leaves:
        if "." not in name and at[-1:] != ("state_dict",) and not isinstance(value, Tensor):
            continue
        full = ".".join((*at, name))
        if isinstance(value, Tensor) and ("." in name or value.ndim):
            state[".".join(_words(full))] = value
        elif "." in name:
            raise ZooError(f"{named}: {full!r} is a {type(value).__name__}, not a tensor")
    if not state or "param_groups" in content:
        raise ZooError(
            f"{named}: {identify_entries(content)}; expected a Wan transformer's tensors, or a "
            "checkpoint with 'generator_ema' or 'generator'"
        )
    return state


def _refuse_odd_names(content: Mapping[Any, Any], named: str, depth: int = 0) -> None:
    for key, value in content.items():
        if isinstance(value, Mapping) and depth < _DEEPEST:
            _refuse_odd_names(value, named, depth + 1)
        elif not isinstance(key, str) and any(isinstance(other, str) for other in content):
            raise ZooError(f"{named}: holds {str(key)[:60]!r} where a tensor's name should be")


@functools.cache
def _say(line: str) -> None:
    """Once in a process: teacher, student and fake score are often of one file."""
    say(line)
