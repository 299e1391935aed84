"""`python -P -m dualpath_worker.fabric`: see `command`."""

from __future__ import annotations

import sys

from dualpath_worker.fabric.command import main

if __name__ == "__main__":
    sys.exit(main())
