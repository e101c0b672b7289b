"""Where what may be lost is kept between runs. It imports next to nothing: TAB asks it too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def cache_directory(environment: Mapping[str, str]) -> Path:
    """$XDG_CACHE_HOME/kdnsctl, by default ~/.cache/kdnsctl. It need not exist."""
    base = environment.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):  # the specification has relative ones ignored
        return Path(base) / "kdnsctl"
    home = environment.get("HOME")
    return (Path(home) if home else Path("~").expanduser()) / ".cache" / "kdnsctl"


def replace(file: Path, content: bytes) -> None:
    """Have `file` hold `content`, or what it held before, whoever else writes it. Raises OSError."""
    import tempfile  # noqa: PLC0415  # only to write

    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.stem}-", delete=False) as written:
        try:
            written.write(content)
            written.close()
            Path(written.name).replace(file)
        except BaseException:
            Path(written.name).unlink(missing_ok=True)
            raise
