"""Price lists in files on this machine, as clouds and SkyPilot give them."""

from datetime import date
from pathlib import Path

from crosslogic.catalog.price_lists.clouds import read_aws, read_azure, read_gcp
from crosslogic.catalog.price_lists.rows import PriceRow
from crosslogic.catalog.price_lists.skypilot import read_skypilot
from crosslogic.kernel.errors import ConfigurationError, InvalidRequest


def price_rows(file: Path, kind: str, cloud: str | None, as_of: date | None) -> list[PriceRow]:
    """Rows of a price list on this machine. Raises InvalidRequest, ConfigurationError."""
    readers = {"aws": read_aws, "gcp": read_gcp, "azure": read_azure}
    try:
        if kind == "skypilot":
            with file.open(encoding="utf-8", errors="replace", newline="") as lines:
                return read_skypilot(lines, cloud=cloud, as_of=as_of, source=file.name)
        if kind not in readers:
            raise InvalidRequest(f"--format {kind}: choose skypilot, aws, gcp or azure")
        return readers[kind](file.read_bytes(), source=file.name)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read ({error.strerror})") from None
