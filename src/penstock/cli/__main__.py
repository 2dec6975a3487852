"""`python -m penstock.cli` and the `penstock` console script."""

import sys

from penstock.cli.main import main


def run() -> None:
    sys.exit(main())


if __name__ == "__main__":
    run()
