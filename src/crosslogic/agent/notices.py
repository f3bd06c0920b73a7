"""What the clouds' metadata services say, as values. Pure; what cannot be read is no notice.

AWS: "Spot Instance interruption notices" (`/latest/meta-data/spot/instance-action`: 404, or JSON with action and time,
two minutes before), and "EC2 instance rebalance recommendations" (`/latest/meta-data/events/recommendations/rebalance`:
404, or JSON with `noticeTime`, when the risk of an interruption has risen: often earlier, and not always followed by
one). Google: "Spot VMs" (`instance/preempted`: TRUE or FALSE, 30 s before). Azure: "Scheduled Events"
(`/metadata/scheduledevents`: JSON with Events, of which Preempt and Terminate take the machine away, 30 s before).
"""

from email.utils import parsedate_to_datetime

import msgspec

from crosslogic.agent.model import Place, SpotNotice

AWS_ACTIONS = frozenset({"terminate", "stop", "hibernate"})
AZURE_EVENTS = {"Preempt": "preempt", "Terminate": "terminate"}


class _AwsAction(msgspec.Struct):
    action: str
    time: str = ""


class _AwsRebalance(msgspec.Struct):
    notice_time: str = msgspec.field(name="noticeTime")


class _AzureEvent(msgspec.Struct, rename="pascal"):
    event_type: str
    not_before: str = ""
    resources: list[str] = []
    event_status: str = ""


class _AzureEvents(msgspec.Struct, rename="pascal"):
    events: list[_AzureEvent] = []


class _AzureCompute(msgspec.Struct, rename="camel"):
    name: str = ""
    location: str = ""
    zone: str = ""
    vm_size: str = ""
    priority: str = ""


def aws_notice(status: int, body: bytes) -> SpotNotice | None:
    if status != 200:
        return None
    try:
        said = msgspec.json.decode(body, type=_AwsAction)
    except (msgspec.DecodeError, RecursionError):
        return None
    return SpotNotice("aws", said.action, said.time) if said.action in AWS_ACTIONS else None


def aws_rebalance(status: int, body: bytes) -> bool:
    """Whether AWS recommends to go elsewhere."""
    if status != 200:
        return False
    try:
        return bool(msgspec.json.decode(body, type=_AwsRebalance).notice_time)
    except (msgspec.DecodeError, RecursionError):
        return False


def gcp_notice(status: int, body: bytes) -> SpotNotice | None:
    return SpotNotice("gcp", "preempt") if status == 200 and body.strip() == b"TRUE" else None


def azure_notice(status: int, body: bytes, name: str = "") -> SpotNotice | None:
    """`name` is this machine's: events of others of its scale set are listed, too."""
    if status != 200:
        return None
    try:
        said = msgspec.json.decode(body, type=_AzureEvents)
    except (msgspec.DecodeError, RecursionError):
        return None
    for event in said.events:
        action = AZURE_EVENTS.get(event.event_type)
        ours = not name or not event.resources or name in event.resources
        if action is not None and ours and event.event_status != "Completed":
            return SpotNotice("azure", action, _rfc3339(event.not_before))
    return None


def aws_place(zone: str, instance_type: str, life_cycle: str) -> Place:
    region = zone[:-1] if zone[-1:].isalpha() else zone
    return Place("aws", region, zone, instance_type, life_cycle.strip() == "spot")


def gcp_place(zone_path: str, machine_path: str, preemptible: str, model: str = "") -> Place:
    """Google writes `projects/123/zones/us-central1-a` and `projects/123/machineTypes/g2-standard-4`."""
    zone = zone_path.rpartition("/")[2]
    spot = preemptible.strip() == "TRUE" or model.strip() == "SPOT"
    return Place("gcp", zone.rpartition("-")[0], zone, machine_path.rpartition("/")[2], spot)


def azure_place(body: bytes) -> tuple[Place, str] | None:
    """The place, and the machine's name in scheduled events."""
    try:
        said = msgspec.json.decode(body, type=_AzureCompute)
    except (msgspec.DecodeError, RecursionError):
        return None
    zone = f"{said.location}-{said.zone}" if said.zone else said.location
    return Place("azure", said.location, zone, said.vm_size, said.priority == "Spot"), said.name


def _rfc3339(text: str) -> str:
    """Azure writes `Mon, 19 Sep 2016 18:29:47 GMT`."""
    try:
        return parsedate_to_datetime(text).isoformat()
    except (TypeError, ValueError):
        return ""
