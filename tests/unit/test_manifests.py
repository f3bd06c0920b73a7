"""Manifests: as the golden files have them, valid by the schemas, with thresholds from the start-up time."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml

from crosslogic.compass.manifests.autoscaling import thresholds
from crosslogic.compass.manifests.model import Autoscaler, DeploymentPlan, SecretKey, Surroundings, checked
from crosslogic.compass.manifests.names import dns_label, label_value
from crosslogic.compass.manifests.planned import plan_of
from crosslogic.compass.manifests.render import own_nodes, plain_files, render
from crosslogic.kernel.errors import InvalidRequest
from tests.manifest_samples import GOLDEN, KSERVE, PLAN, SIMULATED, VARIANTS, golden
from tests.planner_samples import SPEC, planner

SCHEMAS = Path(__file__).parent.parent / "manifest_schemas"
COMPONENT = {"minReplicas", "maxReplicas", "timeout", "labels", "annotations"}
KUBERNETES = "1.33"


def objects(plan: DeploymentPlan = PLAN, around: Surroundings = KSERVE) -> dict[str, dict[str, Any]]:
    return {each.path.removesuffix(".yaml"): yaml.safe_load(each.text) for each in render(plan, around)}


def valid(found: dict[str, Any]) -> None:
    """Raises where the object's kind does not take it."""
    schema = SCHEMAS / f"{found['kind'].lower()}.json"
    if not schema.exists():
        kubernetes_validate.validate(found, KUBERNETES, strict=True)
        return
    jsonschema.validate(found, json.loads(schema.read_text()))
    if found["kind"] == "InferenceService":
        pod = {name: value for name, value in found["spec"]["predictor"].items() if name not in COMPONENT}
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}, KUBERNETES, strict=True
        )


@pytest.mark.parametrize("name", golden())
def test_what_is_rendered_is_what_the_golden_files_hold(name: str) -> None:
    assert golden()[name] == (GOLDEN / name).read_text("utf-8")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_valid_by_its_kinds_schema(variant: str) -> None:
    found = objects(*VARIANTS[variant])
    for each in found.values():
        valid(each)
    assert len(found) >= 9


def test_the_schemas_refuse_what_is_wrong() -> None:
    wrong = objects()
    del wrong["inferenceservice"]["spec"]["predictor"]["containers"][0]["name"]
    wrong["scaledobject"]["spec"]["triggers"][0]["metadata"]["threshold"] = 3
    wrong["poddisruptionbudget"]["spec"]["sometimes"] = True
    wrong["prometheusrule"]["spec"]["groups"][0]["rules"][0]["alert"] = "both"
    for name in ("inferenceservice", "scaledobject", "poddisruptionbudget", "prometheusrule"):
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            valid(wrong[name])


def test_autoscalers_watch_vllms_own_names_with_their_colons() -> None:
    keda = objects()["scaledobject"]["spec"]
    assert [each["name"] for each in keda["triggers"]] == ["running", "waiting", "kv-cache", "rate"]
    assert 'sum(vllm:num_requests_running{namespace="tenant-acme",service="support-chat-metrics"})' in str(keda)
    assert keda["scaleTargetRef"]["name"] == "support-chat-predictor"
    hpa = objects(PLAN, SIMULATED)["hpa"]["spec"]["metrics"]
    assert hpa[0]["pods"]["metric"]["name"] == "vllm:num_requests_running"
    fixed = objects(PLAN, msgspec.structs.replace(SIMULATED, autoscaler=Autoscaler.NONE))
    assert fixed["deployment"]["spec"]["replicas"] == 4
    assert not {"hpa", "scaledobject"} & set(fixed)


def test_a_slower_start_orders_replicas_earlier() -> None:
    plan = msgspec.structs.replace(PLAN, scale_out_at=None)
    quick, slow = (thresholds(msgspec.structs.replace(plan, startup_s=each)) for each in (10.0, 600.0))
    assert (quick.running, slow.running) == (47, 27)  # of 48 at the peak
    assert quick.rate is not None
    assert slow.rate == pytest.approx(12 / 1.75, abs=0.01)
    assert quick.rate > slow.rate
    assert quick.kv_cache > slow.kv_cache
    assert quick.scale_down_after_s == 300
    assert slow.scale_down_after_s == slow.startup_deadline_s == 1800


def test_secrets_are_named_and_never_held() -> None:
    env = objects()["inferenceservice"]["spec"]["predictor"]["containers"][0]["env"]
    named = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in env if "valueFrom" in each}
    assert named == {"HF_TOKEN": {"name": "weights", "key": "token"}, "VLLM_API_KEY": {"name": "engine", "key": "key"}}
    assert "Secret" not in {each["kind"] for each in objects().values()}
    assert set(SecretKey.__struct_fields__) == {"name", "key"}


def test_the_simulator_asks_for_no_gpu_and_takes_the_same_traffic() -> None:
    pod = objects(PLAN, SIMULATED)["deployment"]["spec"]["template"]["spec"]
    assert "gpu" not in str({name: value for name, value in pod.items() if name != "containers"})
    container = pod["containers"][0]
    assert container["command"] == ["crosslogic", "simulate"]
    assert "nvidia.com/gpu" not in str(container["resources"])
    assert "--gpu=h100_sxm" in container["args"]


def test_gpus_of_amd_are_asked_for_by_their_own_name() -> None:
    plan = msgspec.structs.replace(PLAN, gpu_type="mi300x", gpus_per_replica=2, tensor_parallel=2)
    pod = objects(plan)["inferenceservice"]["spec"]["predictor"]
    assert pod["containers"][0]["resources"]["limits"] == {"amd.com/gpu": "2"}
    assert "affinity" not in pod
    assert objects(plan)["resourcequota"]["spec"]["hard"]["requests.amd.com/gpu"] == "10"


def test_the_chart_holds_the_same_objects() -> None:
    files = {each.path: each.text for each in plain_files(PLAN, KSERVE)}
    assert yaml.safe_load(files["helm/values.yaml"])["resources"] == objects()
    assert yaml.safe_load(files["files/vllm.yaml"])["served-model-name"] == PLAN.model
    assert json.loads(files["files/crosslogic-deployment.json"])["deployment"]["replicas"] == 4


def test_our_own_nodes_take_the_plan_as_the_model_registry_does() -> None:
    from crosslogic.api.registry_models import DeploymentCreate, ModelRegister

    bodies = own_nodes(PLAN)
    assert ModelRegister(**bodies["model"]).context_window == 8192
    assert DeploymentCreate(**bodies["deployment"]).config.quantization == "fp8"


def test_an_option_that_was_recommended_becomes_a_plan_with_valid_manifests() -> None:
    found = planner().recommend(SPEC)
    assert found.best is not None
    plan = plan_of(found.best, SPEC, name="Support Chat", org_id="org_1", tenant="acme")
    assert plan.max_replicas == found.best.sizing.replicas
    assert plan.forecast.ttft_p95_ms is not None
    assert plan.max_model_len is not None
    assert plan.max_model_len >= 1024
    for each in objects(plan).values():
        valid(each)


def test_names_are_dns_labels_and_stay_apart() -> None:
    assert dns_label("support-chat") == "support-chat"
    found = [dns_label(each) for each in ("Support Chat", "support_chat", "1st", "ünïcode", "-", "a" * 300, "a\n")]
    assert len(set(found)) == len(found)
    assert all(len(each) <= 40 and each[0].isalpha() and each.replace("-", "").isalnum() for each in found)
    assert label_value("a/b c") == "a_b_c"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"model": "a\nb"}, "model"),
        ({"model": "x" * 201}, "model"),
        ({"min_replicas": 5}, "max_replicas"),
        ({"max_replicas": 10**6}, "max_replicas"),
        ({"tensor_parallel": 2}, "tensor_parallel"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ({"startup_s": float("nan")}, "startup_s"),
    ],
)
def test_a_plan_that_nobody_can_run_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked(msgspec.structs.replace(PLAN, **fields))
    assert refused.value.param == param
