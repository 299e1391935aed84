"""`python -m dualpath_cli`: the `dualpath` command without its script."""

from __future__ import annotations

from dualpath_cli.main import main

if __name__ == "__main__":
    main(prog_name="dualpath")
