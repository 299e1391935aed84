"""What the commands refuse, and how `explain` tells a request's story."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from dualpath_api.errors import SpecError
from dualpath_cli.checks import reachable, store_path
from dualpath_cli.defaults import cluster_for, model_uri, served_name
from dualpath_cli.main import main
from dualpath_cli.plan import Options, make_plan

EXAMPLE = Path(__file__).parents[3] / "examples" / "local.yaml"
RECORD = {
    "id": "cmpl-1",
    "arrived": 1.0,
    "outcome": "ok",
    "prompt_tokens": 200,
    "cached_tokens": 128,
    "generated_tokens": 5,
    "choices": 1,
    "attempts": [
        {
            "job": "cmpl-1",
            "attempt": 0,
            "prefill": "prefill-0-0",
            "mode": "split",
            "decode_bytes": 2_000_000,
            "seconds": 0.5,
            "reasons": {"decode_group": "decode-0 is idle", "prefill": "prefill-0-0 has [few] tokens"},
        }
    ],
    "history": [{"at": 1.5, "after_s": 0.5, "state": "READING", "attempt": 0, "hit_tokens": 128}],
}


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "My Model!"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def refused(*arguments) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(("error: ", "Usage: "))
    return result.stderr


def test_help_names_the_commands_and_imports_nothing_heavy():
    code = "import sys; sys.argv=['dualpath','--help']\nfrom dualpath_cli.main import main\ntry: main()\nfinally: print(sorted(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "explain" in told
    assert "up" in told
    for heavy in ("pydantic", "torch", "asyncio", "rich", "yaml", "msgspec", "aiohttp"):
        assert f"'{heavy}'" not in told


def test_the_version_is_told():
    told = subprocess.run(
        [sys.executable, "-m", "dualpath_cli", "--version"], capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("dualpath, version 0.")


def test_up_wants_a_file_or_a_model():
    assert "neither a FILE nor --model" in refused("up")


def test_up_tells_what_is_wrong_with_the_spec(tmp_path):
    assert "spec.pathPolicy.mode is 'Both'" in refused("up", EXAMPLE, "--set", "spec.pathPolicy.mode=Both")
    assert "No such file" in refused("up", tmp_path / "none.yaml")


def test_up_tells_that_a_port_is_in_use(checkpoint):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused("up", EXAMPLE, "--model", checkpoint, "--port", port)
    assert f"cannot listen on 127.0.0.1:{port}" in text
    assert "address already in use" in text


def test_up_tells_that_a_model_is_missing(tmp_path, checkpoint):
    assert "there is no such directory" in refused("up", EXAMPLE, "--port", 0)
    assert "no config.json" in refused("up", EXAMPLE, "--port", 0, "--model", tmp_path)
    assert "it is a file" in refused("up", EXAMPLE, "--port", 0, "--model", checkpoint / "config.json")
    assert "neither a directory here nor a hub id" in refused("up", "--model", "nothing")


def test_up_tells_that_the_store_cannot_be_written(checkpoint):
    place = f"spec.storage.files.path={checkpoint}/config.json/kv"
    assert "cannot be written" in refused("up", EXAMPLE, "--port", 0, "--model", checkpoint, "--set", place)


def test_up_tells_that_the_buffers_do_not_fit(checkpoint, tmp_path):
    text = refused(
        "up", EXAMPLE, "--port", 0, "--model", checkpoint,
        "--set", f"spec.storage.files.path={tmp_path}", "--set", "spec.prefill.resources.dramBuffer=900Ti",
    )  # fmt: skip
    assert "GiB of memory" in text


def test_up_tells_that_the_ready_file_cannot_be_written(checkpoint, tmp_path):
    store = f"spec.storage.files.path={tmp_path}"
    text = refused(
        "up",
        EXAMPLE,
        "--port",
        0,
        "--model",
        checkpoint,
        "--set",
        store,
        "--ready-file",
        tmp_path / "no" / "f",
    )
    assert "--ready-file" in text


def test_up_tells_that_a_hub_model_cannot_be_fetched(tmp_path):
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "dualpath_cli", "up", "--port", "0", "--model", "some/model"]
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: hf://some/model cannot be fetched")


def test_a_model_alone_gets_a_whole_spec(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with make_plan(None, str(checkpoint), ["spec.decode.parallelism.data=2"], Options()) as plan:
        assert plan.cluster.spec.model.served_name == "My-Model"
        assert [str(name) for name in plan.engines] == ["prefill-0-0", "decode-0-0", "decode-0-1"]
        written = json.loads((plan.folder / "cluster.json").read_text())
        assert written["spec"]["storage"]["files"]["path"] == str(tmp_path / "cache" / "dualpath" / "kv")
        folder = plan.folder
    assert not folder.exists()


def test_a_relative_store_is_relative_to_the_current_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert store_path(cluster_for(EXAMPLE, None, [])) == tmp_path / "kv"


def test_models_are_directories_hub_ids_or_uris(tmp_path):
    assert model_uri(str(tmp_path)) == f"file://{tmp_path}"
    assert model_uri("Qwen/Qwen3-0.6B") == "hf://Qwen/Qwen3-0.6B"
    assert model_uri("hf://a/b") == "hf://a/b"
    assert served_name("hf://a/b.c") == "b.c"
    assert served_name("Qwen/Qwen3-0.6B") == "Qwen3-0.6B"
    assert cluster_for(None, "Qwen/Qwen3-0.6B", []).spec.model.uri == "hf://Qwen/Qwen3-0.6B"
    with pytest.raises(SpecError, match="no such model"):
        model_uri("./a/b")


@pytest.mark.parametrize(
    ("host", "there"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "localhost")]
)
def test_a_listener_is_reached_at(host, there):
    assert reachable(host) == there


class Gateway(BaseHTTPRequestHandler):
    """Answers questions about cmpl-1 only."""

    def do_GET(self):
        answers = {
            "/debug/requests/cmpl-1": (200, RECORD),
            "/debug/requests/secret": (401, {}),
            "/debug/requests/odd": (500, {}),
        }
        code, body = answers.get(self.path, (404, {}))
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode() if code == 200 else b"no")

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway():
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_explain_tells_engines_bytes_and_reasons(gateway):
    result = CliRunner().invoke(main, ["explain", "cmpl-1", "--url", gateway])
    assert result.exit_code == 0, result.output
    for part in (
        "ok; 200 prompt tokens (128 from the cache)",
        "prefill-0-0",
        "2.00 MB",
        "0.500 s",
        "why this decode group",
        "decode-0 is idle",
        "[few]",
        "READING",
    ):
        assert part in result.output


def test_explain_as_json_is_the_record(gateway):
    result = CliRunner().invoke(main, ["explain", "cmpl-1", "--url", gateway, "--json"])
    assert json.loads(result.output) == RECORD


def test_explain_tells_what_it_does_not_find(gateway, monkeypatch, tmp_path):
    assert "does not know the request other" in refused("explain", "other", "--url", gateway)
    assert "wants a token" in refused("explain", "secret", "--url", gateway)
    assert "answered 500" in refused("explain", "odd", "--url", gateway)
    assert "is no URL" in refused("explain", "x", "--url", "localhost")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert "no gateway at" in refused("explain", "x", "--url", url)
    monkeypatch.setenv("DUALPATH_CONTROL_TOKEN_FILE", str(tmp_path / "none"))
    assert "cannot be read" in refused("explain", "x", "--url", gateway)
