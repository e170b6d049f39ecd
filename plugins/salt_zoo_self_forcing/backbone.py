"""The backbone `self-forcing`: a bidirectional teacher and a causal student with a memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from accelerate import init_empty_weights
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from pydantic import Field, field_validator
from torch import nn

from salt_zoo.config.parts import named
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.protocols import Start, StoredWeights
from salt_zoo.io.files.regular import expanded
from salt_zoo.io.known_digests import known_digest
from salt_zoo.plugin.isolation.whole_protocols import check_required
from salt_zoo.plugin.manager import Zoo
from salt_zoo_self_forcing.cache import CacheShape, Policy, new_cache
from salt_zoo_self_forcing.transformer.network import CausalWanNetwork
from salt_zoo_wan.backbone import WanBackbone, WanBackboneConfig, make_wan, stored_of
from salt_zoo_wan.checkpoint.files import find_checkpoint, find_experts
from salt_zoo_wan.checkpoint.load import load_transformer
from salt_zoo_wan.checkpoint.lora_files import merge_lora
from salt_zoo_wan.experts.expert_files import place_of_own
from salt_zoo_wan.sizes import files_of, transformer_config


class SelfForcingBackboneConfig(WanBackboneConfig):
    """Options of the backbone `self-forcing`."""

    #: A registered memory by name, or with its options: `{name: window, frames: 6, sink: 0}`.
    memory: dict[str, Any] = Field(default_factory=lambda: {"name": "full"})
    #: Latent frames of a block.
    block_frames: Annotated[int, Field(ge=1)] = 3
    #: The first frame is a block of its own (for image-to-video, and Self Forcing's i2v recipe).
    independent_first_frame: bool = False
    #: The time at which finished blocks are noised and remembered; 0 as they are.
    context_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    #: Where the student starts: a folder (a student's, of diffusers, of Wan's own code), a file of
    #: Self Forcing, Causal Forcing, LongLive, Salt or another code of Wan, or an index of shards;
    #: `teacher` for the bidirectional teacher's weights. null is the size's own causal weights
    #: where it has some, else the teacher's. A list is one of these and LoRA files that are merged
    #: into it: `[teacher, lora.safetensors]`.
    initial: str | Annotated[tuple[str, ...], Field(min_length=2)] | None = None

    @field_validator("memory", mode="before")
    @classmethod
    def _named(cls, memory: Any) -> Any:
        return named(memory)


#: What a bidirectional network has no use for.
_OF_STUDENTS = ("memory", "block_frames", "independent_first_frame", "context_noise", "initial")


class SelfForcingBackbone(WanBackbone):
    """Wan at one size: the teacher is bidirectional, students are causal."""

    version = 1
    Config = SelfForcingBackboneConfig
    config: SelfForcingBackboneConfig
    streams = True
    unused: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "saved": ("teacher", "initial"),
        "exported": ("teacher", *_OF_STUDENTS),
        "teacher": _OF_STUDENTS,
        "student": ("teacher",),
    }

    @classmethod
    def complete(
        cls, config: SelfForcingBackboneConfig, zoo: Zoo, where: str
    ) -> SelfForcingBackboneConfig:
        """Fill in the options of the memory."""
        name = config.memory["name"]
        options = {key: value for key, value in config.memory.items() if key != "name"}
        checked = zoo.memories.configure(name, options, f"{where}.memory")
        memory = {"name": name, **checked.model_dump(mode="json")}
        return config.model_copy(update={"memory": memory})

    def __init__(self, config: SelfForcingBackboneConfig, zoo: Zoo) -> None:
        super().__init__(config, zoo)
        self.config = config
        self._check_student()
        name = config.memory["name"]
        options = {key: value for key, value in config.memory.items() if key != "name"}
        checked = zoo.memories.configure(name, options, "backbone.memory")
        self.policy: Policy = zoo.memories.create(name, checked, zoo)
        check_required(self.policy, Policy, f"memory {zoo.memories[name]}")
        self._blocks = Blocks(
            config.block_frames,
            first=1 if config.independent_first_frame else None,
            new_memory=lambda network, x: network.new_memory(x),
            context_noise=config.context_noise,
        )
        try:
            parts = self._blocks.split(self.latent_shape[1])
        except ValueError as error:
            raise ZooError(f"backbone.block_frames: {error}") from None
        # a window with no room for a block is an error now, not in the middle of a video
        size = CacheShape(1, 0, 1, 1, 1, torch.float32, "cpu")  # no layers: it holds nothing
        self.policy.place(new_cache(self.policy, size, parts[-1].stop), config.block_frames)

    def _check_student(self) -> None:
        if self.size.experts is not None:
            size = self.config.size
            raise ZooError(
                f"backbone: {size!r} has two networks, and an autoregressive student is one, whose "
                "keys and values its memory keeps; set backbone.options.expert to low or high (and "
                f"backbone.teacher to both: {{size: {size}}}), or take the backbone wan, whose "
                "student has both"
            )

    @classmethod
    def recognise(cls, place: Path, zoo: Zoo, size: str | None) -> dict[str, Any]:
        """As that of `wan`, but for folders of two networks, unless a size is named: then its
        options say which one is meant."""
        if size is None and find_experts(place):
            raise ZooError(
                f"{place}: two networks, and an autoregressive student is one; add --size and "
                "--set backbone.options.expert=high or low"
            )
        return super().recognise(place, zoo, size)

    def _score(self, config: WanBackboneConfig, zoo: Zoo) -> WanBackbone:
        return make_wan(WanBackboneConfig(size=config.size, options=config.options), zoo)

    @property
    def student_is_score(self) -> bool:  # type: ignore[override]
        return self._initial_path() is None and not self._initial_loras()

    def network(self, start: Start) -> nn.Module:
        if start in ("teacher", "score"):
            return self.source(start).network("teacher")
        transformer = self.size.transformer("random") if start == "random" else self._initial()
        return self._causal(transformer).to(self.device)

    def empty_network(self, start: Start) -> nn.Module:
        with init_empty_weights(include_buffers=False):
            return self._causal(self.size.transformer("random").eval())

    def stored_weights(self, start: Start) -> StoredWeights | str:
        if loras := self._initial_loras():
            return f"{loras[0]} is merged into them (backbone.initial)"
        path = self._existing(self._initial_path())
        return stored_of(self.size, path or files_of(self.size))

    def blocks(self, network: Any = None) -> Blocks:
        causal = network is None or isinstance(network, CausalWanNetwork)
        return self._blocks if causal else Blocks()

    def load(self, folder: Path) -> nn.Module:
        network: Any = super().load(folder)
        return self._causal(network.transformer).to(self.device)

    def fingerprint(self) -> Mapping[str, str]:
        found = dict(super().fingerprint())
        for lora in self._initial_loras():
            if not lora.is_file():
                raise ZooError(f"{lora}: there is no such file; see backbone.initial")
            found[f"initial LoRA/{lora.name}"] = known_digest(lora)
        path = self._initial_path()
        if path is None:
            return found
        if not path.exists():
            raise ZooError(f"{path}: there is no such file or folder; see backbone.initial")
        files = find_checkpoint(path).files
        return found | {f"initial/{file.name}": known_digest(file) for file in files}

    def _causal(self, transformer: WanTransformer3DModel) -> nn.Module:
        return CausalWanNetwork(transformer, self.size.coordinates, self._blocks, self.policy)

    def _initial_path(self) -> Path | None:
        """The folder or file of the student's first weights; None for the teacher's."""
        initial = self.config.initial
        if isinstance(initial, tuple):
            initial = initial[0]
        if initial == "teacher":
            return None
        if initial is not None:
            return place_of_own(self.size, expanded(initial))
        return self.size.causal_weights

    def _existing(self, path: Path | None) -> Path | None:
        if path is not None and not path.exists():
            raise ZooError(f"{path}: there is no such file or folder; see backbone.initial")
        return path

    def _initial_loras(self) -> list[Path]:
        """The LoRA files that are merged into the student's first weights."""
        initial = self.config.initial
        return [expanded(p) for p in initial[1:]] if isinstance(initial, tuple) else []

    def _initial(self) -> WanTransformer3DModel:
        """A transformer with the student's first weights."""
        transformer = self._initial_base()
        for lora in self._initial_loras():
            merge_lora(transformer, lora)
        return transformer

    def _initial_base(self) -> WanTransformer3DModel:
        path = self._existing(self._initial_path())
        if path is None:
            return self.size.transformer("teacher")
        return load_transformer(path, transformer_config(self.size)).float()
