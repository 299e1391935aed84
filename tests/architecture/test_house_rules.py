"""The house keeps its rules: layers, sizes, words for everything, and a wheel that works."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "dualpath_api",
    "dualpath_policy",
    "dualpath_kernels",
    "dualpath_gateway",
    "dualpath_worker",
    "dualpath_cli",
)
IMPORT_ALL = """
import importlib, pkgutil, sys
seen = []
for name in sys.argv[2:]:
    package = importlib.import_module(name)
    seen.append(package)
    for found in pkgutil.walk_packages(package.__path__, name + "."):
        if found.ispkg:
            seen.append(importlib.import_module(found.name))
for package in seen:
    assert package.__file__.startswith(sys.argv[1]), package.__file__
print(len(seen))
"""


def script(name: str) -> ModuleType:
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_packages_are_layered_and_siblings_do_not_know_each_other():
    assert "0 broken" in run(Path(sys.executable).with_name("lint-imports"), "--no-cache")


def test_files_are_short_have_a_purpose_and_no_folder_hides_a_standard_module():
    assert list(script("check_sources").problems()) == []


def test_the_reference_pages_are_what_the_code_says():
    assert script("generate_docs").stale() == []


def test_every_metric_that_a_process_serves_is_in_the_table():
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    from dualpath_gateway.metrics import METRICS as GATEWAY
    from dualpath_worker.metrics import METRICS as ENGINE

    for name in [metric.name for metric in GATEWAY] + [metric[1] for metric in ENGINE]:
        assert f"`{name}" in page


def test_links_in_the_documentation_lead_somewhere():
    assert list(script("check_links").problems()) == []


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    links = script("check_links")
    monkeypatch.setattr(links, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "a.md").write_text(
        "# One `two`\n[x](b.md) [y](#one-two) [z](#three) `[code](no.md)`\n```\n[w](no.md)\n```\n"
    )
    assert list(links.problems()) == [
        "a.md: b.md: there is no such file",
        "a.md: #three: there is no such heading",
    ]


def test_no_place_of_a_registry_is_written_down():
    for name in ("constraints.txt", "pyproject.toml", "Makefile", "scripts/setup.sh"):
        assert "://" not in (ROOT / name).read_text(), name


@pytest.fixture(scope="module")
def wheel_venv(tmp_path_factory):
    """An environment that has the built wheel; its dependencies are borrowed from ours."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q", wheel)
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(ours + "\n")  # its own .pth files, ours among them, are not read
    return folder / "venv"


def test_every_package_is_in_the_wheel(wheel_venv):
    told = run(wheel_venv / "bin" / "python", "-c", IMPORT_ALL, wheel_venv, *PACKAGES, cwd=wheel_venv)
    assert int(told) >= len(PACKAGES)


def test_the_command_of_the_wheel_works(wheel_venv):
    assert "dualpath, version" in run(wheel_venv / "bin" / "dualpath", "--version", cwd=wheel_venv)
