"""A distilled student as a folder that a stock pipeline of diffusers loads and runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers

#: Wan's and every distillation's here; `timestep_shift` of methods and sampling.
SHIFT = 5.0

_FLOW_MAP = "FlowMapEulerDiscreteScheduler"

_README = """---
library_name: diffusers
pipeline_tag: {task}
tags: [salt-zoo, distillation, wan]
---
# A few-step student of Wan, distilled with Salt Zoo

```python
import torch
from diffusers import {pipeline}
from diffusers.utils import export_to_video{load}

pipe = {pipeline}.from_pretrained({here!r}, torch_dtype=torch.bfloat16).to("cuda"){image}
video = pipe({given}
    "a red fox runs through fresh snow",
    num_inference_steps=4,
    guidance_scale=1.0,  # guidance is distilled into the weights
    height={height},
    width={width},
    num_frames={frames},
).frames[0]
export_to_video(video, "fox.mp4", fps={rate:g})
```

{scheduler}

The `sde` form, in which DMD students are trained (each step noises the clean estimate anew):

```python
from functools import partial
from diffusers import FlowMatchEulerDiscreteScheduler

pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift={shift}, stochastic_sampling=True)
steps = 4
sigmas = [1 - k / steps for k in range(steps)]  # the scheduler shifts them
pipe.scheduler.set_timesteps = partial(pipe.scheduler.set_timesteps, sigmas=sigmas)
```

By itself `FlowMatchEulerDiscreteScheduler` would choose other times (1000, 909.7, 717.3, 24.4) than
those at which the student was trained, so it must be given the list.
{guidance}"""

_GUIDANCE = """
A network that was not distilled (after teacher forcing, say) is sampled with many steps and with
guidance away from the negative prompt that training gave the teacher:

```python
video = pipe({given}
    "a red fox runs through fresh snow",
    num_inference_steps=50,
    guidance_scale={scale:g},
    negative_prompt={negative!r},
)
```
"""

_EXACT = """\
The scheduler in this folder steps along the velocity (`ode`) at exactly the times that the student
was trained at: `num_inference_steps=4` gives 1000, 937.5, 833.3, 625. It needs a diffusers that has
`FlowMapEulerDiscreteScheduler` (0.42.1 has it)."""

_GIVEN = """\
The scheduler in this folder steps along the velocity (`ode`), but must be given the student's times
first, as below but with `stochastic_sampling=False`. (A later diffusers, when it saves a student,
takes `FlowMapEulerDiscreteScheduler`, whose own times they are.)"""

_MISSING = """
**Not a whole pipeline yet**: when it was saved, {missing} could not be found on that machine. Copy
these folders here from the teacher's pipeline and add its `model_index.json`, or give
`WanTransformer3DModel.from_pretrained(folder, subfolder="transformer")` to the teacher's pipeline.
"""
_MISSING_SECOND = "Likewise `transformer_2`.\n"


#: By whether it generates from an image.
_PIPELINES = {False: "WanPipeline", True: "WanImageToVideoPipeline"}
_GIVEN_IMAGE = {False: "", True: "\n    image,"}
_LOAD_IMAGE = """
image = load_image("fox.png").resize(({width}, {height}))"""


def scheduler_config(shift: float = SHIFT) -> dict[str, Any]:
    """Euler steps along the velocity at `[1, 1 - 1/n, ..., 1/n]`, shifted, for any n.

    diffusers' flow-map scheduler is the one whose own choice of times is that list; a diffusers
    from before it gets the flow-matching one, which must be given the list (see the README).
    """
    exact = hasattr(diffusers, _FLOW_MAP)
    name = _FLOW_MAP if exact else "FlowMatchEulerDiscreteScheduler"
    return {
        "_class_name": name,
        "_diffusers_version": diffusers.__version__,
        "num_train_timesteps": 1000,
        "shift": shift,
    }


def write_pipeline(
    folder: Path,
    codecs: Mapping[str, Path],
    frame_size: tuple[int, int],
    frames: int,
    frame_rate: float,
    negative_prompt: str = "",
    guidance_scale: float = 1.0,
    *,
    parts: Sequence[str] = ("text_encoder", "tokenizer", "vae"),
    from_image: bool = False,
    expand_timesteps: bool = False,
    boundary: float | None = None,
) -> None:
    """Complete `folder`, in which `transformer/` lies (and `transformer_2/`, where there is a
    boundary), to a pipeline.

    The codecs' files are hard-linked where the file system can (they are many times the student's
    size), else copied: do not edit them in place.

    Args:
        codecs: folders of text encoder, tokenizer, VAE and what else there is of `parts`. If one is
            missing, there is no `model_index.json` and the README says what to add: a training's
            end is no time to fail.
        frame_size, frames, frame_rate: of the student's videos, in pixels: height and width, their
            number, and how many a second.
        negative_prompt, guidance_scale: for the README, for networks that are sampled with them.
        parts: all that the pipeline has beside transformer and scheduler.
        from_image: it is a `WanImageToVideoPipeline`.
        expand_timesteps: the first frame's latents are given (Wan 2.2 5 B).
        boundary: the time from which on `transformer` is passed, below it `transformer_2`; None for
            one network.
    """
    scheduler = scheduler_config()
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    for part, source in codecs.items():
        _link_tree(source, folder / part)
    missing = [part for part in parts if part not in codecs]
    if not missing:
        index = _model_index(folder, scheduler["_class_name"], parts, from_image)
        if expand_timesteps:
            index["expand_timesteps"] = True
        if boundary is not None:
            index |= {"transformer_2": index["transformer"], "boundary_ratio": boundary}
        _write_json(folder / "model_index.json", index)
    height, width = frame_size
    text = _README.format(
        here="path/to/this/folder",
        height=height,
        width=width,
        frames=frames,
        rate=frame_rate,
        shift=SHIFT,
        guidance=_GUIDANCE.format(
            scale=guidance_scale, negative=negative_prompt, given=_GIVEN_IMAGE[from_image]
        ),
        task="image-to-video" if from_image else "text-to-video",
        pipeline=_PIPELINES[from_image],
        load=", load_image" if from_image else "",
        image=_LOAD_IMAGE.format(height=height, width=width) if from_image else "",
        given=_GIVEN_IMAGE[from_image],
        scheduler=_EXACT if scheduler["_class_name"] == _FLOW_MAP else _GIVEN,
    )
    if missing:
        text += _MISSING.format(missing=", ".join(missing))
        text += "" if boundary is None else _MISSING_SECOND
    (folder / "README.md").write_text(text, encoding="utf-8")


def _model_index(
    folder: Path, scheduler: str, parts: Sequence[str], from_image: bool
) -> dict[str, Any]:
    tokenizer = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text("utf-8"))
    classes = {
        "image_encoder": ["transformers", "CLIPVisionModel"],
        "image_processor": ["transformers", "CLIPImageProcessor"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", tokenizer.get("tokenizer_class", "T5TokenizerFast")],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    return {
        "_class_name": _PIPELINES[from_image],
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", scheduler],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        **{part: classes[part] for part in parts},
    }


def _link_tree(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        original = path.resolve()  # the hub's cache holds links to blobs
        try:
            os.link(original, place)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(original, place)


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
