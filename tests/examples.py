"""How often properties of money and metering are tried: `HYPOTHESIS_PROFILE=nightly` tries each 10,000 times."""

import os

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
MOST = int(os.environ.get("CROSSLOGIC_EXAMPLES", "10000"))


def examples(usual: int) -> int:
    """`usual` is what every run of the tests has time for."""
    return MOST if NIGHTLY else usual
