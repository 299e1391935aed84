"""An emulated cluster network on one machine: namespaces, rate-limited NICs, and the whole system in them.

`network` (with `layout`, `rates`, `iproute`, `wires`, `places`, `leftovers`) makes nodes and NICs and knows
nothing of DualPath; `topology` is the file that people write; `system` starts DualPath's processes in the
nodes; `embedded` runs all that for tests and benchmarks.
"""
