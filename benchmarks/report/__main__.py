"""`python -m benchmarks.report DIR`: render a report again from its folder."""

from __future__ import annotations

import sys

from benchmarks.report.rerender import main

if __name__ == "__main__":
    sys.exit(main())
