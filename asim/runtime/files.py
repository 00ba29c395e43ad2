"""Small files that the driver itself writes."""

from pathlib import Path


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet: ``path``, or ``stem_01`` … beside it (blocking: call it in a thread)."""
    target, number = path, 0
    while True:
        try:
            with target.open("x") as file:
                file.write(text)
            return
        except FileExistsError:
            number += 1
            target = path.with_name(f"{path.stem}_{number:02d}{path.suffix}")
