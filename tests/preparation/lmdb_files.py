"""Writes LMDB folders in the form of the scripts of CausVid, Self Forcing and Self-Forcing-Plus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_lmdb(
    folder: Path,
    prompts: Sequence[str],
    latents: np.ndarray,
    images: np.ndarray | None = None,
    shape: str | None = None,
) -> Path:
    """One environment, row by row, and at last its shapes; the shape of the latents stands under
    every name, as `create_lmdb_14b_shards.py` writes it.

    Args:
        latents: `[N, F, C, H, W]` or `[N, K, F, C, H, W]`.
        images: `[N, height, width, 3]`, bytes.
        shape: what is written as the shape, where it is wrong on purpose.
    """
    import lmdb

    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"latents": latents.astype(np.float16), "prompts": np.array(prompts)}
    if images is not None:
        arrays["img"] = images
    with lmdb.open(str(folder), map_size=1 << 26) as environment:
        for row in range(len(prompts)):  # they are written file by file
            with environment.begin(write=True) as transaction:
                for name, array in arrays.items():
                    value = array[row]
                    content = value.encode() if isinstance(value, str) else value.tobytes()
                    transaction.put(f"{name}_{row}_data".encode(), content)
        written = " ".join(map(str, latents.shape)) if shape is None else shape
        with environment.begin(write=True) as transaction:
            for name in arrays:
                transaction.put(f"{name}_shape".encode(), written.encode())
    return folder
