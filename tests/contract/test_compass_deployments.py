"""Deployments over Kubernetes' real client and an API server that remembers, with their revisions on both databases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.deployments.kubernetes import KubernetesCluster, kubernetes_cluster
from crosslogic.compass.deployments.model import DeploymentState, PlannedDeployment
from crosslogic.compass.deployments.service import DeploymentService
from crosslogic.compass.deployments.sql import DeploymentsSql
from crosslogic.compass.manifests.model import Autoscaler
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import ConfigurationError, Conflict, Forbidden, InvalidRequest, NotFound, Unavailable
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.fake_kubernetes import TOKEN, State, kubernetes_server
from tests.manifest_samples import KSERVE, PLAN, SIMULATED

NAMESPACE = "/api/v1/namespaces/tenant-acme"
SERVICE = "/apis/serving.kserve.io/v1beta1/namespaces/tenant-acme/inferenceservices/support-chat"
SCALED = "/apis/keda.sh/v1alpha1/namespaces/tenant-acme/scaledobjects/support-chat"


@pytest.fixture
def server() -> Iterator[tuple[str, State]]:
    with kubernetes_server() as found:
        yield found


@pytest.fixture
def state(server: tuple[str, State]) -> State:
    return server[1]


def cluster_at(url: str, directory: Path, token: str = TOKEN) -> KubernetesCluster:
    """Through a kubeconfig, as operators have one."""
    path = directory / f"kubeconfig-{token}"
    named = {"cluster": "c", "user": "u"}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "x", "context": named}],
                "current-context": "x",
            }
        )
    )
    return kubernetes_cluster(str(path))


class Rig:
    def __init__(self, service: DeploymentService, org_id: str, tenancy: TenancyService) -> None:
        self.service = service
        self.org_id = org_id
        self.tenancy = tenancy

    async def planned(self, **fields: Any) -> PlannedDeployment:
        around = fields.pop("around", KSERVE)
        return await self.service.plan(msgspec.structs.replace(PLAN, org_id=self.org_id, **fields), around)

    async def audit(self) -> list[str]:
        entries = await self.tenancy.audit.entries(limit=500)
        found = [each.action.removeprefix("planned_deployment.") for each in entries]
        return [each for each in reversed(found) if "." not in each]


@pytest.fixture
async def rig(engine: AsyncEngine, server: tuple[str, State], tmp_path: Path) -> Rig:
    clock = ManualClock()
    tenancy = TenancyService(TenancySql(engine), key_hasher(), clock)
    org = await tenancy.create_org("acme")
    service = DeploymentService(
        DeploymentsSql(engine, clock), cluster_at(server[0], tmp_path), AuditTrail(digest=key_hasher(), clock=clock)
    )
    return Rig(service, org.id, tenancy)


async def test_a_deployment_is_tried_applied_seen_and_deleted(rig: Rig, state: State) -> None:
    planned = await rig.planned()
    assert (planned.state, planned.revision) == (DeploymentState.PLANNED, 1)
    done = await rig.service.deploy(planned.id, rig.org_id)
    assert (done.state, done.applied_revision) == (DeploymentState.APPLIED, 1)
    dry = [dry_run for verb, _, dry_run in state.calls if verb == "patch"]
    assert dry == sorted(dry, reverse=True)  # all that was tried came first
    assert SERVICE in state.objects
    assert len(state.objects) == 11
    seen = await rig.service.status(planned.id, rig.org_id)
    assert seen.ready
    assert (seen.endpoint, seen.ready_replicas) == ("http://support-chat.example.com", 1)
    assert seen.pods[0].restarts == 1
    gone = await rig.service.delete(planned.id, rig.org_id)
    assert gone.state is DeploymentState.DELETED
    assert {each["kind"] for each in state.objects.values()} == {"Namespace", "ResourceQuota"}
    assert (await rig.service.delete(planned.id, rig.org_id)).state is DeploymentState.DELETED
    assert (await rig.audit())[-6:] == ["apply", "applied", "delete", "deleted", "delete", "deleted"]


async def test_applying_again_changes_nothing(rig: Rig, state: State) -> None:
    planned = await rig.planned()
    await rig.service.deploy(planned.id, rig.org_id)
    before = msgspec.json.encode(state.objects)
    await rig.service.deploy(planned.id, rig.org_id)
    assert msgspec.json.encode(state.objects) == before


async def test_a_dry_run_that_fails_applies_nothing(rig: Rig, state: State) -> None:
    first = await rig.planned()
    await rig.service.deploy(first.id, rig.org_id)
    held = set(state.objects)
    state.forbidden.add(("patch", "scaledobjects"))
    second = await rig.planned(name="other")
    with pytest.raises(Forbidden, match=r"may not patch scaledobjects \(keda.sh\) in namespace tenant-acme; grant it"):
        await rig.service.deploy(second.id, rig.org_id)
    assert set(state.objects) == held
    assert (await rig.service.store.one(second.id, rig.org_id)).state is DeploymentState.PLANNED


async def test_what_fails_half_way_is_written_down_and_can_be_asked_for_again(rig: Rig, state: State) -> None:
    planned = await rig.planned()
    state.failing_after = 4
    with pytest.raises(Unavailable, match="status 500"):
        await rig.service.deploy(planned.id, rig.org_id)
    failed = await rig.service.store.one(planned.id, rig.org_id)
    assert failed.state is DeploymentState.FAILED
    assert failed.applied_revision is None
    assert "status 500" in str(failed.message)
    state.failing_after = None
    assert (await rig.service.deploy(planned.id, rig.org_id)).state is DeploymentState.APPLIED


async def test_roll_back_takes_the_plan_before_and_removes_what_it_does_not_have(rig: Rig, state: State) -> None:
    planned = await rig.planned(around=msgspec.structs.replace(KSERVE, autoscaler=Autoscaler.NONE))
    with pytest.raises(Conflict, match="no revision before"):
        await rig.service.roll_back(planned.id, rig.org_id)
    await rig.service.deploy(planned.id, rig.org_id)
    assert SCALED not in state.objects
    changed = msgspec.structs.replace(PLAN, org_id=rig.org_id, max_num_seqs=64)
    await rig.service.revise(planned.id, rig.org_id, changed, KSERVE)
    await rig.service.deploy(planned.id, rig.org_id)
    assert SCALED in state.objects
    assert "--max-num-seqs=64" in str(state.objects[SERVICE])
    back = await rig.service.roll_back(planned.id, rig.org_id)
    assert (back.revision, back.applied_revision, back.state) == (3, 3, DeploymentState.APPLIED)
    assert SCALED not in state.objects
    assert "--max-num-seqs=256" in str(state.objects[SERVICE])


async def test_what_others_manage_is_taken_only_by_force(rig: Rig, state: State) -> None:
    planned = await rig.planned()
    await rig.service.deploy(planned.id, rig.org_id)
    state.edited(SERVICE, ".spec.predictor.maxReplicas", 9, "kubectl-edit")
    with pytest.raises(Conflict, match="kubectl-edit"):
        await rig.service.deploy(planned.id, rig.org_id)
    assert state.objects[SERVICE]["spec"]["predictor"]["maxReplicas"] == 9
    await rig.service.deploy(planned.id, rig.org_id, force=True)
    assert state.objects[SERVICE]["spec"]["predictor"]["maxReplicas"] == 4


async def test_the_tenants_quota_is_for_all_its_deployments(rig: Rig, state: State) -> None:
    for name in ("one", "two"):
        await rig.service.deploy((await rig.planned(name=name)).id, rig.org_id)
    quota = state.objects[f"{NAMESPACE}/resourcequotas/crosslogic"]
    assert quota["spec"]["hard"]["requests.nvidia.com/gpu"] == "10"


async def test_errors_of_the_cluster_are_said_in_plain_words(
    rig: Rig, state: State, server: tuple[str, State], tmp_path: Path, engine: AsyncEngine
) -> None:
    planned = await rig.planned()
    await rig.service.deploy(planned.id, rig.org_id)
    state.unknown_groups.add("keda.sh")
    with pytest.raises(Unavailable, match="knows no ScaledObject; install KEDA"):
        await rig.service.deploy(planned.id, rig.org_id)
    state.ready = False
    seen = await rig.service.status(planned.id, rig.org_id)
    assert not seen.ready
    assert "Insufficient nvidia.com/gpu" in str(seen.pods[0].reason)
    trail = AuditTrail(digest=key_hasher())
    store = DeploymentsSql(engine, ManualClock())
    stranger = DeploymentService(store, cluster_at(server[0], tmp_path, "wrong"), trail)
    with pytest.raises(Unavailable, match="does not accept our credentials"):
        await stranger.status(planned.id, rig.org_id)
    nowhere = DeploymentService(store, cluster_at("http://127.0.0.1:9", tmp_path, "none"), trail)
    with pytest.raises(Unavailable, match="does not answer"):
        await nowhere.status(planned.id, rig.org_id)
    with pytest.raises(Unavailable, match="no cluster is configured"):
        await DeploymentService(store, None, trail).deploy(planned.id, rig.org_id)
    with pytest.raises(ConfigurationError, match="kubeconfig"):
        kubernetes_cluster(str(tmp_path / "absent"))


async def test_names_are_taken_once_and_foreign_deployments_are_unknown(rig: Rig) -> None:
    planned = await rig.planned()
    with pytest.raises(Conflict, match="already"):
        await rig.planned()
    other = await rig.tenancy.create_org("bolt")
    for org_id, ref in ((other.id, planned.id), (rig.org_id, "plan_absent")):
        with pytest.raises(NotFound, match="there is no such deployment"):
            await rig.service.deploy(ref, org_id)
    with pytest.raises(InvalidRequest):
        await rig.planned(name="third", max_replicas=0)
    assert [each.name for each in await rig.service.store.page(rig.org_id)] == ["support-chat"]
    assert await rig.service.store.page(other.id) == []


async def test_a_plain_deployment_without_gpus_is_applied_too(rig: Rig, state: State) -> None:
    planned = await rig.planned(around=SIMULATED)
    await rig.service.deploy(planned.id, rig.org_id)
    kinds = {each["kind"] for each in state.objects.values()}
    assert {"Deployment", "HorizontalPodAutoscaler"} <= kinds
    assert "InferenceService" not in kinds
    seen = await rig.service.status(planned.id, rig.org_id)
    assert (seen.ready, seen.endpoint) == (True, "http://support-chat-predictor.tenant-acme.svc")
