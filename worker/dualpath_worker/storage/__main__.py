"""Processes of a Mooncake Store: `python -P -m dualpath_worker.storage master|node ...`.

They need no etcd where one master is enough; then its end is the end of all blocks.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from dualpath_api.errors import DualPathError, SpecError
from dualpath_api.logs import set_up_logging
from dualpath_worker.storage.master import MasterSettings, serve_master
from dualpath_worker.storage.node import NodeSettings, serve_node
from dualpath_worker.storage.storage_nics import store_network_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 0 after a stop, 2 for what the user must change, 1 for the rest."""
    args = parser().parse_args(arguments)
    set_up_logging(f"store-{args.verb}", args.log)
    code = 1
    try:
        code = asyncio.run(_serve(args))
    except DualPathError as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)  # a call of the library may hang: its thread must not hold up the end


async def _serve(args: argparse.Namespace) -> int:
    etcd = tuple(filter(None, args.etcd.split(",")))
    if args.verb == "master":
        return await serve_master(
            MasterSettings(
                etcd=etcd,
                host=args.host,
                port=args.port,
                metrics_host=args.metrics_host,
                metrics_port=args.metrics_port,
                node_ttl_s=args.node_ttl,
                lease_s=args.lease,
                offload=args.offload,
            )
        )
    masters = tuple(filter(None, args.master.split(",")))
    if bool(etcd) == bool(masters):
        raise SpecError(
            "a node needs either an etcd or masters",
            cause=f"--etcd is {args.etcd!r}, --master is {args.master!r}",
            remedy="give one of them: --etcd HOST:2379,... or --master HOST:50051",
        )
    if args.medium == "NVMe" and not args.path:
        raise SpecError(
            "a node with medium NVMe needs a directory", cause="no --path", remedy="give one with --path DIR"
        )
    network = store_network_of(
        tuple(filter(None, args.nics.split(","))), rdma=args.protocol == "rdma", host=args.host
    )
    return await serve_node(
        NodeSettings(
            endpoints=tuple(f"etcd://{address}" for address in etcd) or masters,
            medium=args.medium,
            path=args.path,
            size=args.size,
            port=args.port,
            metrics_host=args.metrics_host,
            metrics_port=args.metrics_port,
            network=network,
        )
    )


def parser() -> argparse.ArgumentParser:
    """The command lines."""
    made = argparse.ArgumentParser(prog="python -P -m dualpath_worker.storage", description=__doc__)
    verbs = made.add_subparsers(dest="verb", required=True)
    master = verbs.add_parser("master", help="knows where blocks are")
    master.add_argument("--port", type=_port, default=50051, help="of its API (default: %(default)s)")
    master.add_argument("--node-ttl", type=int, default=10, help="seconds until a silent node is given up")
    master.add_argument("--lease", type=float, default=10.0, help="seconds for which a read protects a block")
    master.add_argument("--offload", action="store_true", help="nodes keep blocks in directories")
    node = verbs.add_parser("node", help="keeps blocks")
    node.add_argument("--master", default="", help="HOST:PORT of a master, where there is no etcd")
    node.add_argument("--medium", choices=("DRAM", "NVMe"), default="DRAM", help="where blocks are kept")
    node.add_argument("--path", default="", help="directory for medium NVMe")
    node.add_argument("--size", type=int, required=True, help="bytes to keep")
    node.add_argument("--port", type=_port, default=0, help="first of the 16 ports that it may use; 0: any")
    node.add_argument("--protocol", choices=("tcp", "rdma"), default="tcp", help="of block transfers")
    node.add_argument("--nics", default="", help="shell patterns of its storage NICs, separated by commas")
    for verb, metrics_port in ((master, 9003), (node, 9004)):
        verb.add_argument("--etcd", default="", help="HOST:PORT,... of the etcd that elects the master")
        verb.add_argument(
            "--host",
            default=os.environ.get("DUALPATH_POD_IP", ""),
            help="address under which others reach it (default: that of the route to the etcd or master)",
        )
        verb.add_argument("--metrics-host", default="0.0.0.0", help="to listen on (default: %(default)s)")
        verb.add_argument("--metrics-port", type=_port, default=metrics_port, help="/metrics and probes")
        verb.add_argument("--log", choices=("text", "json"), default="text", help="format of the log")
    return made


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise ValueError
    return number


if __name__ == "__main__":
    main()
