"""Three whole clusters, as YAML to read: a review sees what a change of the code does to them.

DUALPATH_WRITE_GOLDEN=1 writes the files anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from unit.operator.desired_world import LOCAL, MANAGED, NODES, changed, cluster_of, rendered

FOLDER = Path(__file__).parent / "golden"
TWO_RANKS = changed(changed(MANAGED, "spec.prefill.parallelism.data", 2), "spec.decode.parallelism.data", 2)
SPECS = {"local": LOCAL, "managed-dra": TWO_RANKS, "multus-nodes": NODES}


class Plain(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


@pytest.mark.parametrize("name", SPECS)
def test_a_cluster_is_rendered_as_the_golden_file_says(name):
    path = FOLDER / f"{name}.yaml"
    text = yaml.dump_all(rendered(cluster_of(SPECS[name])), Dumper=Plain, sort_keys=False, width=110)
    if os.environ.get("DUALPATH_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
