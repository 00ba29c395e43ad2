"""The agent as one file that any Python runs, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

AGENT = Path(__file__).parent.parent / "agent"
"""The agent's directory, where it runs from on this host."""
NO_PART = ("__init__.py", "protocol.py")
"""What is there for the driver."""


@cache
def package() -> tuple[str, bytes]:
    """(name, contents); the name has the first 16 digits of the contents' SHA-256."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(AGENT.glob("*.py")):
            if path.name not in NO_PART:
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    data = out.getvalue()
    return f"agent-{hashlib.sha256(data).hexdigest()[:16]}.pyz", data
