"""`python -m restore.commands …` is `restore …`."""

import sys

from restore.commands.main import main

sys.exit(main())
