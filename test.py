"""Test a network: `python test.py -opt options/test_….yml` (see README)."""

import sys

from restore.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["test", *sys.argv[1:]]))
