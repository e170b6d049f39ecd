"""Runs several `salt-zoo` commands in one of several processes: a JSON list of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    from salt_zoo.cli import main

    codes = [main(words) for words in json.loads(Path(sys.argv[1]).read_text())]
    sys.exit(max(codes))
