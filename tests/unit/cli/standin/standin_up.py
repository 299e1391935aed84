"""Runs the real supervisor over the stand-ins: standin_up.py CLUSTER.yaml FOLDER READY_FILE FORM."""

from __future__ import annotations

import sys
from pathlib import Path

from dualpath_api.loading import load_cluster
from dualpath_cli.plan import Options, Plan
from dualpath_cli.supervisor import supervise

file, folder, ready, form = sys.argv[1:]
options = Options(port=0, ready_file=Path(ready), as_json=True, log_form=form, drain_seconds=7.0)
plan = Plan(
    cluster=load_cluster(file),
    options=options,
    folder=Path(folder),
    gateway_module="standin_gateway",
    engine_module="standin_engine",
)
sys.exit(supervise(plan))
