"""Checks .github/workflows by actionlint and zizmor: `make lint-workflows`.

Both are pinned by hashes (workflows.lock; actionlint/go.sum) and need no network once they are there.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "build" / "workflows.lock"
MODULE: Final = ROOT / "build" / "actionlint"
WORKFLOWS: Final = ROOT / ".github" / "workflows"


def main() -> None:
    """Run both; fail if either complains of a file (by default all of ours)."""
    files = sys.argv[1:] or [str(path) for path in sorted(WORKFLOWS.glob("*.yml"))]
    tools = install()
    # What their own check of shell scripts needs is not pinned; `run` holds nothing but one command here.
    complaints = [
        subprocess.run([tools / "actionlint", "-shellcheck=", "-pyflakes=", *files], check=False).returncode,
        subprocess.run(
            [tools / "zizmor", "--offline", "--persona=pedantic", "--no-progress", *files], check=False
        ).returncode,
    ]
    sys.exit(int(any(complaints)))


def install() -> Path:
    """Install them once for each state of the pins; give the folder of the programs."""
    pins = (LOCK, MODULE / "go.mod", MODULE / "go.sum")
    state = hashlib.sha256(b"".join(pin.read_bytes() for pin in pins)).hexdigest()[:16]
    place = ROOT / ".cache" / "workflows" / state
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip = (place / "bin" / "pip", "--disable-pip-version-check", "--quiet", "install", "--require-hashes")
        subprocess.run([*pip, "-r", LOCK], check=True)
        subprocess.run(
            [place / "bin" / "go", "build", "-mod=readonly", "-trimpath", "-o", place / "bin" / "actionlint",
             "github.com/rhysd/actionlint/cmd/actionlint"],
            cwd=MODULE, check=True, env={**os.environ, "GOTOOLCHAIN": "local", "GOROOT": ""},
        )  # fmt: skip
        (place / "done").touch()
    return place / "bin"


if __name__ == "__main__":
    main()
