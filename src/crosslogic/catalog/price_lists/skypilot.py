"""SkyPilot's catalogue CSVs (`vms.csv` of a cloud), and the packaged price list, which has those columns and `cloud`.

In Google's list the GPUs stand alone, in rows without an instance type; where its host's row is there, it is added.

Invariant: a row without a GPU that is no host is passed over, as most rows of these lists are.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from datetime import date

from crosslogic.catalog.price_lists.rows import PriceRow
from crosslogic.kernel.errors import InvalidRequest

_NAMES = {
    "instance_type": ("InstanceType", "instance_type"),
    "gpu": ("AcceleratorName", "gpu"),
    "count": ("AcceleratorCount", "gpu_count"),
    "on_demand": ("Price", "on_demand_usd_h"),
    "spot": ("SpotPrice", "spot_usd_h"),
    "reserved": ("reserved_usd_h",),
    "region": ("Region", "region"),
    "zone": ("AvailabilityZone", "zone"),
    "info": ("GpuInfo",),
    "cloud": ("cloud", "Cloud"),
    "source": ("source",),
    "memory": ("MemoryGiB", "memory_gib"),
}
_HOSTS = {"H100": "a3-highgpu-1g"}  # the host of one GPU; of eight, eight of them
_GOOGLE_NAMES = {"H100": "a3-highgpu-8g", "H100-MEGA": "a3-megagpu-8g", "H200": "a3-ultragpu-8g"}
_MEMORY = re.compile(r"[\"']SizeInMiB[\"']:\s*(\d{3,7})")
_SIZES = {"A100": ((60, "A100-80GB"), (0, "A100-40GB"))}


def read_skypilot(
    lines: Iterable[str], *, cloud: str | None = None, as_of: date | None = None, source: str = ""
) -> list[PriceRow]:
    """The rows of one CSV; `cloud` where it has no such column. Raises InvalidRequest when it is none of SkyPilot's."""
    reader = csv.DictReader(lines)
    try:
        fields = reader.fieldnames or ()
        named = {ours: next((name for name in names if name in fields), None) for ours, names in _NAMES.items()}
        missing = [_NAMES[ours][0] for ours in ("gpu", "count", "on_demand", "region") if named[ours] is None]
        if missing:
            raise InvalidRequest(
                f"the CSV has no column {', '.join(missing)}; is it a vms.csv of SkyPilot's catalogue?"
            )
        if named["cloud"] is None and cloud is None:
            raise InvalidRequest("the CSV does not say which cloud it is of; name it", param="cloud")
        cells = [
            ({ours: (row.get(name) or "").strip() if name else "" for ours, name in named.items()}, number)
            for number, row in enumerate(reader, 2)
        ]
    except csv.Error as error:
        raise InvalidRequest(f"the CSV cannot be read ({error})") from None
    hosts = {
        (row["cloud"] or cloud, row["instance_type"], row["zone"]): row
        for row, _ in cells
        if row["instance_type"] in _HOSTS.values() and not row["gpu"]
    }
    return list(_rows(cells, hosts, cloud, as_of, source))


def _rows(
    cells: list[tuple[dict[str, str], int]],
    hosts: dict[tuple[str | None, str, str], dict[str, str]],
    cloud: str | None,
    as_of: date | None,
    source: str,
) -> Iterator[PriceRow]:
    for row, number in cells:
        if not row["gpu"] or not row["count"]:
            continue
        try:
            count = float(row["count"])
        except ValueError:
            count = 0.0
        of = row["cloud"] or cloud or ""
        alone = not row["instance_type"]
        host = hosts.get((of, _HOSTS.get(row["gpu"], ""), row["zone"]), {}) if alone else {}
        memory = _MEMORY.search(row["info"])
        yield PriceRow(
            cloud=of.lower(),
            region=row["region"] or "all",
            zone=row["zone"] or None,
            instance_type=row["instance_type"] or _GOOGLE_NAMES.get(row["gpu"], ""),
            gpu=_gpu(row["gpu"], memory),
            gpu_count=count,
            on_demand=_with_host(row["on_demand"], host.get("on_demand"), count),
            spot=_with_host(row["spot"], host.get("spot"), count),
            reserved=row["reserved"],
            gpu_memory_mib=int(memory[1]) if memory else None,
            host_missing=alone and not host,
            as_of=as_of,
            source=row["source"] or source,
            line=number,
        )


def _gpu(name: str, memory: re.Match[str] | None) -> str:
    """A name without its memory, by the memory that the list says."""
    if name in _SIZES and memory is not None:
        return next(full for least, full in _SIZES[name] if int(memory[1]) / 1024 >= least)
    return "A100-40GB" if name == "A100" else name


def _with_host(price: str, host: str | None, count: float) -> str:
    if not host or not price:
        return price
    try:
        return str(float(price) + count * float(host))
    except ValueError:
        return price
