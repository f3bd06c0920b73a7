"""Writes the generated pages of docs/, or with `--check` says which are out of date and exits 1."""

import sys
from pathlib import Path

from api_page import page as api_reference

from crosslogic.settings.show import reference

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {"configuration.md": reference, "api.md": api_reference}


def stale() -> list[Path]:
    """Pages that differ from what would be written."""
    return [DOCS / name for name, text in PAGES.items() if _read(DOCS / name) != text()]


def _read(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None


def main() -> int:
    found = stale()
    if "--check" in sys.argv[1:]:
        sys.stderr.write("".join(f"{path} is out of date; run `make docs`\n" for path in found))
        return int(bool(found))
    for path in found:
        path.write_text(PAGES[path.name](), "utf-8")
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
