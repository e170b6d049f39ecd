"""What each micro-batch of a training is made of: its draws, data and encoded prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from salt_zoo.config.training import TrainingConfig
from salt_zoo.core import first_frame
from salt_zoo.core.base.rng import KeyedRNG, step_rng
from salt_zoo.core.base.transfers import send
from salt_zoo.core.dataset import check_has_videos
from salt_zoo.core.methods.method import trained_together
from salt_zoo.core.networks.condition import encode, negative_prompt, unconditional, without_prompt
from salt_zoo.core.protocols import Backbone, Batch, Dataset, DrawsPrompts, Method, Sample
from salt_zoo.training.data.prefetch import Place, Prefetch
from salt_zoo.training.state.layout import Layout

#: Updates whose prompts are encoded together.
AHEAD = 100


class Batches:
    """The micro-batches of one process, by their place in the training."""

    def __init__(
        self,
        method: Method,
        backbone: Backbone,
        dataset: Dataset,
        config: TrainingConfig,
        seed: int,
        layout: Layout,
    ) -> None:
        self._method, self._backbone, self._dataset = method, backbone, dataset
        self._config, self._seed, self._layout = config, seed, layout
        self._copies = {name for name, role in method.roles().items() if role.copy_of is not None}
        device = torch.device(backbone.device)
        self._data = Prefetch(self._sample, self._after, device)

    def get(self, place: Place) -> tuple[Batch, KeyedRNG]:
        """This process's share of the global batch."""
        backbone, sample = self._backbone, self._data.get(place)
        with torch.no_grad():
            image = first_frame.of_sample(backbone, sample)  # guidance leads away from no image
            batch = Batch(
                prompts=sample.prompts,
                condition={**encode(backbone, sample.prompts), **image},
                unconditional={**unconditional(backbone, self._layout.micro_batch), **image},
                x0=self._latents(sample) if self._method.needs_data else None,
                trajectory=None
                if sample.trajectory is None
                else send(sample.trajectory, backbone.device),
                trajectory_times=sample.trajectory_times,
                no_prompt={**without_prompt(backbone, self._layout.micro_batch), **image}
                if negative_prompt(backbone)
                else None,
            )
        return batch, self._draws(place)

    def _latents(self, sample: Sample) -> Tensor:
        check_has_videos(sample)
        device = self._backbone.device
        if sample.latents is not None:
            return send(sample.latents, device)
        assert sample.video is not None
        return self._backbone.encode_video(send(sample.video, device))

    def encode_ahead(self, first: int) -> None:
        """Encode the prompts of the next updates, where a backbone had rather do so in one go."""
        ahead = self._backbone.encode_ahead
        if ahead is None:
            return
        self.wait()
        prompts = dict.fromkeys([negative_prompt(self._backbone), ""])
        for step in range(first, min(first + AHEAD, self._config.updates)):
            for place in self.places(step):
                rng = self._draws(place).at("data")
                prompts |= dict.fromkeys(self._prompts(rng))
        known = self._backbone.encodings
        ahead([one for one in prompts if known is None or one not in known])

    def _prompts(self, rng: KeyedRNG) -> list[str]:
        if isinstance(self._dataset, DrawsPrompts):
            return self._dataset.draw_prompts(rng, "train")
        return self._dataset.sample(rng, "train", False).prompts

    def places(self, step: int) -> Iterator[Place]:
        """The micro-batches of an update, in order."""
        taken: Counter[str] = Counter()
        for update in self._method.update_order(step):
            role = trained_together(update)[0]
            if role in self._copies:
                continue
            for part in range(self._layout.accumulation):
                yield Place(role, step, taken[role], part)
            taken[role] += 1

    def wait(self) -> None:
        """Return when the data set is not in use."""
        self._data.wait()

    def close(self) -> None:
        """End the thread that reads ahead."""
        self._data.close()

    def _after(self, place: Place) -> Place | None:
        rest = iter(self.places(place.step))
        while next(rest, place) != place:
            pass
        following = next(rest, None)
        if following is None and place.step + 1 < self._config.updates:
            return next(self.places(place.step + 1), None)
        return following

    def _draws(self, place: Place) -> KeyedRNG:
        rows, device = self._layout.rows(place.part), self._backbone.device
        return step_rng(self._seed, place.role, place.step, place.number, rows, device)

    def _sample(self, place: Place) -> Sample:
        rng = self._draws(place).at("data")
        videos = self._method.needs_data or self._backbone.image_shape is not None
        return self._dataset.sample(rng, "train", videos)
