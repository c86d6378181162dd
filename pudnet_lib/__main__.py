"""The command line: ``pudnet`` and ``python -m pudnet_lib``."""

from pudnet_lib.cli import main

if __name__ == "__main__":
    main()
