"""Train a network: `python train.py -opt options/train_….yml` (see README)."""

import sys

from restore.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
