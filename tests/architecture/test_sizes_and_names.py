"""Files stay small enough to be read, and names tell what is in them."""

from tests.architecture.sources import PACKAGE, ROOT, python_files, shown

MOST_LINES = 500
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "base", "core"}


def test_no_file_needs_splitting() -> None:
    long = {
        shown(path): lines
        for path in python_files(PACKAGE, ROOT / "tests", ROOT / "bench", ROOT / "tools")
        if (lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}


def test_no_name_is_vague() -> None:
    places = [*python_files(PACKAGE), *(path for path in PACKAGE.rglob("*") if path.is_dir())]
    assert [shown(path) for path in places if path.stem in VAGUE] == []
