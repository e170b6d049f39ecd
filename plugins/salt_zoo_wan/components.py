"""The components of a diffusers pipeline of Wan: local folders, or repositories on the hub.

Only `Components.folder` downloads, and only a component that is not on this machine.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.regular import expanded
from salt_zoo.io.files.seals import Damaged, read_json
from salt_zoo.io.known_digests import known_digest

#: The components of a diffusers pipeline that a backbone loads.
COMPONENTS = ("transformer", "text_encoder", "tokenizer", "vae")
#: The file whose presence marks a component's folder; `config.json` for the others.
_MARKS = {
    "tokenizer": "tokenizer_config.json",
    "image_processor": "preprocessor_config.json",
}
#: What our own folders say of an expert (`experts.records`).
_EXPERT = "_expert"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Components:
    """A diffusers folder, or a hub id with its revision.

    Args:
        source: a folder, or a hub id `owner/name`.
        revision: branch, tag or commit; for hub ids only.
        bytes: about how large each part is on the hub, for messages.
        needed: which parts are used of it; the message on a missing one tells how to get them all.
        alone: the network that a local folder of one network holds, whatever it calls it.
    """

    source: str
    revision: str = "main"
    bytes: Mapping[str, int] | None = field(default=None, compare=False)
    needed: tuple[str, ...] = field(default=COMPONENTS, compare=False)
    alone: str = field(default="transformer", compare=False)

    def __post_init__(self) -> None:
        if not self.is_local and not _HUB_ID.fullmatch(self.source):
            raise ZooError(
                f"{self.source}: there is no such file or folder, and it is no hub id (owner/name)"
            )

    @property
    def is_local(self) -> bool:
        return expanded(self.source).is_dir()

    def find(self, part: str) -> Path | None:
        """The folder of a part that is complete on this machine, else None; no network."""
        if self.is_local:
            root = expanded(self.source)
            folder = root / part
            if part == self.alone and not folder.is_dir() and not _names(root, part):
                # the folder is a transformer itself, or holds one network that says which it is
                one = root / "transformer"
                if not one.is_dir():
                    folder = root
                elif (one / "config.json").is_file() and _EXPERT in _read_json(one / "config.json"):
                    folder = one
        else:
            from huggingface_hub import try_to_load_from_cache

            mark = f"{part}/{_MARKS.get(part, 'config.json')}"
            found = try_to_load_from_cache(self.source, mark, revision=self.revision)
            if not isinstance(found, str):
                return None
            folder = Path(found).parent
        return folder if is_complete(folder, part) else None

    def folder(self, part: str) -> Path:
        """The folder of a part, fetched from the hub if need be.

        Raises:
            ZooError: it is not there and cannot be fetched; the line says how to get it.
        """
        if found := self.find(part):
            return found
        if self.is_local:
            raise ZooError(
                f"{self.source}: has no whole {part} ({_MARKS.get(part, 'config.json')} and "
                "what it needs); give a diffusers pipeline folder"
            )
        reason = self._fetch(part)
        if found := self.find(part):
            return found
        needed = self.missing(self.needed)
        raise ZooError(
            f"{self.source}: its {part}{self._size([part])} is not on this machine and cannot be "
            f"downloaded ({reason}); with internet access run: {self.command(needed)}"
            f"{self._size(needed)}; or name a local folder in backbone.options.weights"
        )

    def command(self, parts: Sequence[str]) -> str:
        """The shell command that fetches parts into the hub's local cache."""
        wanted = " ".join(f'--include "{part}/*"' for part in parts)
        revision = "" if self.revision == "main" else f" --revision {self.revision}"
        return f"hf download {self.source}{revision} {wanted}"

    def missing(self, parts: Sequence[str]) -> list[str]:
        """Those of `parts` that would have to be fetched."""
        return [] if self.is_local else [part for part in parts if self.find(part) is None]

    def config(self, part: str) -> dict[str, Any] | None:
        """The part's `config.json` if it is on this machine."""
        folder = self.find(part)
        return _read_json(folder / "config.json") if folder else None

    def fingerprint(self, part: str) -> dict[str, str]:
        """Digests of a local part's files; for the hub its id and commit, which is the same before
        and after the part is fetched."""
        folder = self.find(part)
        if not self.is_local:
            commit = folder.parent.name if folder else _commit(self.source, self.revision)
            return {part: f"{self.source}@{commit}"}
        if folder is None:
            return {part: "missing"}
        return {
            f"{part}/{path.relative_to(folder).as_posix()}": known_digest(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }

    def _size(self, parts: Sequence[str]) -> str:
        size = sum((self.bytes or {}).get(part, 0) for part in parts)
        return f" (about {size / 1e9:.3g} GB)" if size else ""

    def _fetch(self, part: str) -> str:
        """Try to download a part; returns why it failed, or an empty string."""
        from huggingface_hub import snapshot_download

        try:
            snapshot_download(
                self.source,
                revision=_cached_commit(self.source, self.revision) or self.revision,
                allow_patterns=[f"{part}/*", "model_index.json"],
                etag_timeout=5,
            )
        except Exception as error:  # no internet, no such repository, no access, a full disk, ...
            cause: BaseException = error
            while cause.__cause__ is not None:  # the wrappers' texts run over many lines
                cause = cause.__cause__
            return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0][:100]}"
        return "the repository lacks it"


def _commit(source: str, revision: str) -> str:
    """The commit that a revision names: by this machine's cache, else by the hub; the revision
    itself where neither can tell."""
    return _cached_commit(source, revision) or _commit_on_hub(source, revision) or revision


def _cached_commit(source: str, revision: str) -> str | None:
    """That of the parts that are on this machine: all are taken from one commit."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source, repo_type="model")
    try:
        return (cache / "refs" / revision).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


@functools.cache
def _commit_on_hub(source: str, revision: str) -> str | None:
    from huggingface_hub import HfApi

    try:
        return HfApi().repo_info(source, revision=revision, timeout=5).sha
    except Exception:  # no internet: what is needed cannot be fetched either, and that is told then
        return None


@dataclass(frozen=True)
class Download:
    """What of a pipeline is missing on this machine.

    Attributes:
        bytes: about how large each missing part is, by its name.
    """

    components: Components
    bytes: Mapping[str, int]


def together(downloads: Iterable[Download]) -> list[dict[str, Any]]:
    """Each source once, with each part that is missing of it once: `source`, `parts`, `bytes` in
    all and the `command` that fetches them."""
    wanted: dict[Components, dict[str, int]] = {}
    for one in downloads:
        wanted.setdefault(one.components, {}).update(one.bytes)
    found = []
    for components, sizes in wanted.items():
        networks = sorted(part for part in sizes if part.startswith("transformer"))
        parts = [*networks, *(part for part in sizes if part not in networks)]
        found.append(
            {
                "source": components.source,
                "parts": parts,
                "bytes": sum(sizes.values()),
                "command": components.command(parts),
            }
        )
    return found


def _names(root: Path, part: str) -> bool:
    """Whether a pipeline's index says that it has the part, which then is missing."""
    index = root / "model_index.json"
    found = _read_json(index).get(part) if index.is_file() else None
    return isinstance(found, list) and any(found)  # one that it does without is [null, null]


def is_complete(folder: Path, part: str) -> bool:
    """Whether a part's mark and all its weight files are in `folder`."""
    if not (folder / _MARKS.get(part, "config.json")).is_file():
        return False
    if part in _MARKS:  # they have no weights
        return True
    indices = sorted(folder.glob("*.index.json"))
    if indices:
        shards = _read_json(indices[0]).get("weight_map")
        if not isinstance(shards, dict):
            raise ZooError(f"{indices[0]}: damaged (it names no files); download it again")
        return all((folder / str(name)).is_file() for name in set(shards.values()))
    return any(any(folder.glob(pattern)) for pattern in _WEIGHTS)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: Any = read_json(path)
    except Damaged as damage:
        raise ZooError(f"{path}: damaged ({damage.why}); download it again") from None
    if not isinstance(content, dict):
        raise ZooError(f"{path}: damaged (it holds no object); download it again")
    return content


def load_component(folder: Path, load: Callable[[], Any]) -> Any:
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would write over the training's own
    try:
        return load()
    except Exception as error:  # transformers and diffusers raise many kinds for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ZooError(f"{folder}: cannot be loaded ({reason}); download it again") from None
    finally:
        if bars:
            logging.enable_progress_bar()
