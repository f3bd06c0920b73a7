"""Which GPUs the instance types of clouds have, by the rules of their names. Pure.

Invariant: a type that no rule knows has none that we know of; nothing is guessed.
"""

import re

_AWS_FAMILIES = {
    "p3": "V100-16GB", "p3dn": "V100-32GB", "p4d": "A100-40GB", "p4de": "A100-80GB", "p5": "H100", "p5e": "H200",
    "p5en": "H200", "p6-b200": "B200", "p6-b300": "B300", "g4dn": "T4", "g5": "A10G", "g6": "L4", "gr6": "L4",
    "g6e": "L40S",
}  # fmt: skip
_AWS_COUNTS = {
    "p3.2xlarge": 1, "p3.8xlarge": 4, "p3.16xlarge": 8, "p5.4xlarge": 1, "g4dn.12xlarge": 4, "g4dn.metal": 8,
    "g5.12xlarge": 4, "g5.24xlarge": 4, "g5.48xlarge": 8, "g6.12xlarge": 4, "g6.24xlarge": 4, "g6.48xlarge": 8,
    "g6e.12xlarge": 4, "g6e.24xlarge": 4, "g6e.48xlarge": 8,
}  # fmt: skip
_AWS_WHOLE = frozenset(("p3dn", "p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300"))

_AZURE = (
    (re.compile(r"^Standard_ND96is?r?_?H100_v5$", re.I), "H100", 8),
    (re.compile(r"^Standard_ND96is?r?_?H200_v5$", re.I), "H200", 8),
    (re.compile(r"^Standard_ND96is?r?_?MI300X_v5$", re.I), "MI300X", 8),
    (re.compile(r"^Standard_NC(?P<cpus>40|80)adi?s_H100_v5$", re.I), "H100-NVL", {"40": 1, "80": 2}),
    (re.compile(r"^Standard_NC(?P<cpus>24|48|96)ads_A100_v4$", re.I), "A100-80GB-PCIe", {"24": 1, "48": 2, "96": 4}),
    (re.compile(r"^Standard_ND96amsr_A100_v4$", re.I), "A100-80GB", 8),
    (re.compile(r"^Standard_ND96asr_v4$", re.I), "A100-40GB", 8),
    (re.compile(r"^Standard_NC(?P<cpus>4|8|16|64)as_T4_v3$", re.I), "T4", {"4": 1, "8": 1, "16": 1, "64": 4}),
    (re.compile(r"^Standard_NV(?P<cpus>36|72)ad(?:m)?s_A10_v5$", re.I), "A10", {"36": 1, "72": 2}),
)


def aws_gpus(instance_type: str) -> tuple[str, int] | None:
    """GPU and how many of them an EC2 instance type has."""
    family = instance_type.split(".", 1)[0]
    gpu = _AWS_FAMILIES.get(family)
    if gpu is None:
        return None
    return gpu, _AWS_COUNTS.get(instance_type, 8 if family in _AWS_WHOLE else 1)


def azure_gpus(sku: str) -> tuple[str, int] | None:
    for pattern, gpu, count in _AZURE:
        found = pattern.match(sku)
        if found is not None:
            return gpu, count if isinstance(count, int) else count[found["cpus"]]
    return None
