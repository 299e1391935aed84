"""What UCX is told, and how a process that used it ends."""

import subprocess
import sys

from dualpath_worker.transfer.environment import prepare


def test_a_machine_without_rdma_moves_bytes_by_tcp_and_cross_memory_reads(tmp_path):
    environ = {"HOME": "/root"}
    added = prepare(environ, sysfs=tmp_path)
    assert environ["UCX_TLS"] == "tcp,cma,self"
    assert environ["UCX_MODULES"] == "^ib"
    assert environ.items() >= added.items()


def test_on_a_machine_with_rdma_ucx_chooses_the_transport(tmp_path):
    (tmp_path / "class/infiniband/mlx5_0").mkdir(parents=True)
    environ = {}
    prepare(environ, sysfs=tmp_path)
    assert "UCX_TLS" not in environ
    assert "UCX_MODULES" not in environ
    assert environ["UCX_TCP_USER_TIMEOUT"] == "5s"


def test_what_the_operator_has_set_is_kept(tmp_path):
    environ = {"UCX_TLS": "tcp,self", "UCX_TCP_USER_TIMEOUT": "20s"}
    added = prepare(environ, sysfs=tmp_path)
    assert (environ["UCX_TLS"], environ["UCX_TCP_USER_TIMEOUT"]) == ("tcp,self", "20s")
    assert "UCX_TLS" not in added


def test_leaving_flushes_and_keeps_the_exit_code():
    code = (
        "import atexit, sys\n"
        "from dualpath_worker.transfer.exit import leave\n"
        "atexit.register(print, 'destructors ran')\n"
        "sys.stdout.write('all is said')\n"
        "leave(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "all is said")
