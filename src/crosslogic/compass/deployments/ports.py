"""What a deployment service needs of a cluster, and of nodes that we run ourselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from crosslogic.compass.deployments.model import Answered, ClusterStatus, ObjectRef
from crosslogic.compass.manifests.model import DeploymentPlan
from crosslogic.tenancy.audit import Actor


class Cluster(Protocol):
    """Raises Forbidden, Conflict, InvalidRequest and Unavailable in plain words, each naming the object."""

    async def apply(self, objects: Sequence[Mapping[str, Any]], *, dry_run: bool = False, force: bool = False) -> None:
        """Bring the objects to what they say, in their order; harmless to repeat. `dry_run`: only ask whether."""
        ...

    async def delete(self, objects: Sequence[ObjectRef]) -> int:
        """Remove them; what is gone already is no error. How many were there."""
        ...

    async def status(self, namespace: str, deployment: str, serving: ObjectRef) -> ClusterStatus:
        """Pods of the deployment, and whether it serves."""
        ...

    async def ask(self, namespace: str, service: str, port: int, body: Mapping[str, Any]) -> Answered:
        """Send a chat completion to a service inside the cluster, through the cluster's own API."""
        ...


class OwnNodes(Protocol):
    """Nodes with our agent. `ref` is the planned deployment's id. Raises Conflict and InvalidRequest."""

    def acting_as(self, actor: Actor) -> OwnNodes: ...

    async def apply(self, ref: str, revision: int, plan: DeploymentPlan, *, dry_run: bool = False) -> None:
        """Want nodes that serve the plan, and move requests to them once they are there; harmless to repeat."""
        ...

    async def delete(self, ref: str) -> int:
        """Let its nodes finish. How many deployments of nodes that were."""
        ...

    async def status(self, ref: str) -> ClusterStatus:
        """Its nodes, in the place of pods."""
        ...

    async def node_ids(self, ref: str) -> list[str]:
        """Of the nodes that serve it now."""
        ...
