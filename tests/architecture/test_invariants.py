"""Each of the 27 invariants of billing has a test, and `docs/billing.md` says which."""

import re

from tests.architecture.sources import ROOT

_ROW = re.compile(r"^\| (\d+) \| .+ \| `(tests/[a-z_/]+\.py)` `(\w+)` \|$", re.MULTILINE)


def test_every_invariant_names_a_test_that_is_there() -> None:
    rows = _ROW.findall((ROOT / "docs" / "billing.md").read_text("utf-8"))
    assert [int(number) for number, _, _ in rows] == [*range(1, 28)]
    missing = [
        f"{path}::{name}"
        for _, path, name in rows
        if not re.search(rf"^(?:(?:async )?def {name}\(|{name} = )", (ROOT / path).read_text("utf-8"), re.MULTILINE)
    ]
    assert missing == []
