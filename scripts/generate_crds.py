"""Write the CustomResourceDefinitions to crds/ and their chart. `--check` only tells what is out of date."""

from __future__ import annotations

import sys
from pathlib import Path

from dualpath_api.crd import crd_files

ROOT = Path(__file__).resolve().parents[1]
KEEP = "    helm.sh/resource-policy: keep  # deleting a definition deletes all objects of its kind\n"


def wanted() -> dict[Path, str]:
    """All files and their text."""
    files: dict[Path, str] = {}
    for name, text in crd_files().items():
        files[ROOT / "crds" / name] = text
        marked = text.replace("\nmetadata:\n", f"\nmetadata:\n  annotations:\n{KEEP}", 1)
        files[ROOT / "charts" / "dualpath-crds" / "templates" / name] = marked
    return files


def main() -> int:
    """Write or compare; 1 if a file is out of date."""
    check, stale = "--check" in sys.argv[1:], []
    for path, text in wanted().items():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for name in stale:
        sys.stdout.write(f"{name} is out of date: run `make crds`\n" if check else f"wrote {name}\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
