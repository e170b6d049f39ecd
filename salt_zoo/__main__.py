"""`python -m salt_zoo` is `salt-zoo`."""

import sys


def main() -> int:
    """The command; Ctrl-C before it has begun is no traceback, either."""
    try:
        from salt_zoo.cli import main as command

        return command()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
