"""The picture of a report that the README shows.

`python -m tests.benchmarks.picture` takes it again, with Chromium. It holds the digest of the page
that it shows, so that a test can tell when the page has changed since.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

REPORT = Path(__file__).resolve().parents[2] / "reports" / "digits"
PICTURE = REPORT / "picture.png"
#: Pixels of the window, and of the picture's width.
WINDOW, WIDTH = (1200, 1900), 900
KEY = "sha256 of index.html"


def digest() -> str:
    return hashlib.sha256((REPORT / "index.html").read_bytes()).hexdigest()


def take() -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--window-size={WINDOW[0]},{WINDOW[1]}", f"--user-data-dir={folder}/profile"]
        page = (REPORT / "index.html").as_uri()
        command = ["chromium", *options, "--virtual-time-budget=2000", f"--screenshot={shot}", page]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(shot) as taken:
            image = taken.convert("RGB").resize((WIDTH, WINDOW[1] * WIDTH // WINDOW[0]))
    info = PngInfo()
    info.add_text(KEY, digest())
    image.quantize(128).save(PICTURE, optimize=True, pnginfo=info)


if __name__ == "__main__":
    take()
