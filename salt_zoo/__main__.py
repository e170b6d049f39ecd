"""`python -m salt_zoo` is `salt-zoo`."""

from salt_zoo.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
