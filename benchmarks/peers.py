"""A Python for peers: it sees this one's packages, and others that the project itself has no use for."""

import subprocess
import sys
import venv
from pathlib import Path


def python_with(place: Path, packages: list[str]) -> Path:
    """An interpreter in `place` with such packages, without what they depend on; made once."""
    python = place / "bin/python"
    if (place / "complete").is_file() and (place / "complete").read_text() == " ".join(packages):
        return python
    venv.create(place, with_pip=True, clear=True)
    found = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    )
    Path(found.stdout.strip(), "ours.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    subprocess.run([place / "bin/pip", "install", "-q", "--no-deps", *packages], check=True)
    (place / "complete").write_text(" ".join(packages))
    return python
