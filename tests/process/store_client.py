"""A client of a store with an etcd, as a process: its end takes the library half a minute, unless it is abrupt.

store_client.py ENDPOINT COPIES write|read NAME...: one line of JSON with how often what came out.
A wrong byte counts as "wrong".
"""

import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np


def ask(endpoint, copies, verb, names):
    """Run it; the counts."""
    command = [sys.executable, __file__, endpoint, str(copies), verb, *names]
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def main(endpoint, copies, verb, *names):
    from process.store_bed import IMPATIENT, LAYOUT, block_of, key_of, read

    from dualpath_worker.storage.mooncake import MooncakeStore
    from dualpath_worker.storage.mooncake_client import TCP
    from dualpath_worker.storage.mooncake_link import StoreLink

    link = StoreLink((endpoint,), TCP, copies=int(copies))
    link.wait(60)
    store, found = MooncakeStore(link, LAYOUT, patience=IMPATIENT), Counter()
    for name in names:
        if verb == "write":
            found[store.write_full(key_of(name), [block_of(name)])] += 1
            continue
        result, data = read(store, key_of(name))
        found["wrong" if result.ok and not np.array_equal(data, block_of(name)) else result] += 1
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
