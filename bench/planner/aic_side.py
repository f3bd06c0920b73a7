"""Runs in AIConfigurator's own environment: rows as JSON on standard input, an answer to each as a line of JSON.

It imports nothing of ours. What it cannot answer is a line with `error`.
"""

import json
import logging
import sys
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

from aiconfigurator.cli.api import cli_estimate  # type: ignore[import-not-found]  # noqa: E402


def main() -> None:
    for row in json.load(sys.stdin):
        try:
            found = cli_estimate(**row)
            answer = {"ttft_ms": float(found.ttft), "tpot_ms": float(found.tpot)}
        except (Exception, SystemExit) as error:  # whatever another's package raises
            answer = {"error": f"{type(error).__name__}: {error}"[:200]}
        print("@" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
