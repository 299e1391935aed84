"""Counters of a crowded network: their kinds, and what each driver calls them.

Kinds, as in `dualpath_nic_congestion_total`:
- cnp_sent, cnp_handled: congestion notifications, by the receiver and by the sender of RoCE traffic
- ecn_marked: packets that a switch has marked
- out_of_sequence, sequence_error, ack_timeout: what RDMA noticed of lost packets
- discards: packets that the device had to drop
- xmit_wait: ticks in which an InfiniBand port had data and no credit to send it
- pause_rx_prioN, pause_tx_prioN: priority flow control, frames of each priority

Sources of the names: Linux, Documentation/ABI/stable/sysfs-class-infiniband,
drivers/infiniband/hw/{mlx5,bnxt_re}, drivers/net/ethernet/{mellanox,broadcom,intel}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_OF_PORT = {
    "hw_counters/np_cnp_sent": "cnp_sent",
    "hw_counters/tx_cnp_pkts": "cnp_sent",
    "hw_counters/rp_cnp_handled": "cnp_handled",
    "hw_counters/rx_cnp_pkts": "cnp_handled",
    "hw_counters/np_ecn_marked_roce_packets": "ecn_marked",
    "hw_counters/rx_ecn_marked_pkts": "ecn_marked",
    "hw_counters/out_of_sequence": "out_of_sequence",
    "hw_counters/oos_drop_count": "out_of_sequence",
    "hw_counters/packet_seq_err": "sequence_error",
    "hw_counters/seq_err_naks_rcvd": "sequence_error",
    "hw_counters/local_ack_timeout_err": "ack_timeout",
    "hw_counters/to_retransmits": "ack_timeout",
    "hw_counters/rx_roce_discards": "discards",
    "hw_counters/tx_roce_discards": "discards",
    "counters/port_xmit_discards": "discards",
    "counters/port_xmit_wait": "xmit_wait",
}
_OF_INTERFACE = {
    "statistics/rx_missed_errors": "discards",  # no buffer was free; rx_dropped counts unwanted protocols too
    "statistics/tx_dropped": "discards",
}

_PAUSE = re.compile(
    r"(?:port\.)?(?P<dir>rx|tx)_"
    r"(?:prio(?P<mlx5>\d)_pause"
    r"|priority_(?P<intel>\d)_xoff(?:\.nic|_rx|_tx)?"
    r"|pfc_ena_frames_pri(?P<bnxt>\d))"
)


def congestion_files(ports: Sequence[Path], interfaces: Sequence[Path]) -> tuple[tuple[str, Path], ...]:
    """(kind, file) of what these RDMA ports and interfaces have; several files of a kind are added up."""
    pairs = [(ports, _OF_PORT), (interfaces, _OF_INTERFACE)]
    return tuple(_present(pairs))


def _present(pairs: Sequence[tuple[Sequence[Path], Mapping[str, str]]]) -> Iterator[tuple[str, Path]]:
    for folders, names in pairs:
        for folder in folders:
            for name, kind in names.items():
                if (folder / name).exists():
                    yield kind, folder / name


def read_congestion(
    files: Sequence[tuple[str, Path]], statistics: Sequence[Mapping[str, int]]
) -> dict[str, int]:
    """Totals by kind, from files and from ethtool's statistics; what cannot be read is left out."""
    found: dict[str, int] = {}
    for kind, path in files:
        try:
            found[kind] = found.get(kind, 0) + read_count(path)
        except (OSError, ValueError):  # some drivers list a counter and refuse to read it
            continue
    for table in statistics:
        for name, value in table.items():
            if kind := pause_kind(name):
                found[kind] = found.get(kind, 0) + value
    return found


def read_count(path: Path) -> int:
    """A counter's file. Raises OSError or ValueError. Unbuffered, as this runs for many files each second."""
    with path.open("rb", buffering=0) as file:
        return int(file.read(64))


def pause_kind(name: str) -> str:
    """The kind of an ethtool statistic; "": none of ours."""
    match = _PAUSE.fullmatch(name)
    if match is None:
        return ""
    return f"pause_{match['dir']}_prio{match['mlx5'] or match['intel'] or match['bnxt']}"
