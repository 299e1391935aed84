"""`dualpath fabric`: the same checks for people, with the same exit codes."""

import json

import pytest
from click.testing import CliRunner

from dualpath_cli.main import main
from dualpath_worker.fabric import command


def cluster(folder, match, **fabric):
    role = {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}}
    spec = {
        "model": {"uri": "file:///none", "servedName": "tiny"},
        "prefill": role,
        "decode": role,
        "storage": {"files": {"path": "/none", "size": "1Gi"}},
        "nics": [{"role": "compute", "match": match, "linkBps": 10**9}],
        "fabric": fabric,
    }
    head = {"apiVersion": "dualpath.io/v1alpha1", "kind": "DualPathCluster", "metadata": {"name": "t"}}
    file = folder / "cluster.json"
    file.write_text(json.dumps({**head, "spec": spec}))
    return str(file)


def run(*words):
    return CliRunner().invoke(main, ["fabric", *words])


def test_a_check_has_the_exit_code_of_what_is_wrong_and_not_of_advice(tmp_path):
    assert run("check", cluster(tmp_path, "lo")).exit_code == 0
    done = run("check", cluster(tmp_path, "none0"), "--json")
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (1, False)
    assert run("check", cluster(tmp_path, "none0"), "--on-mismatch", "Degrade").exit_code == 0
    done = run("check", cluster(tmp_path, "lo", trafficClasses={}), "--json")
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (0, True)
    assert len(json.loads(done.stdout)["findings"]) == 2


def test_lines_are_printed_for_the_compute_nics_of_the_file(tmp_path):
    done = run("classes", "lines", cluster(tmp_path, "lo"))
    assert done.exit_code == 0
    assert done.stdout.startswith("table inet dualpath {")
    assert "tc qdisc replace dev lo root handle d0a: htb default 10" in done.stdout


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (["probe"], "use just one of --serve and --to", 2),
        (["probe", "--serve", "192.0.2.1"], "cannot receive probes on 192.0.2.1", 2),
        (["probe", "--to", "127.0.0.1"], "cannot be measured", 1),
        (["check", "/none"], "does not exist", 2),
    ],
)
def test_what_cannot_be_done_is_one_message(words, told, code):
    done = run(*words)
    assert done.exit_code == code
    assert told in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("words", "theirs"),
    [
        (["probe", "--to", "127.0.0.1"], ["probe", "send", "--to", "127.0.0.1"]),
        (["probe", "--serve", "192.0.2.1"], ["probe", "serve", "--address", "192.0.2.1"]),
    ],
)
def test_both_ways_to_call_a_probe_fail_alike(words, theirs, capsys):
    assert run(*words).exit_code == command.main(theirs)
    assert "Traceback" not in capsys.readouterr().err
