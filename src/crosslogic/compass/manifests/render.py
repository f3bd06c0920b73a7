"""A plan and its surroundings as files: KServe or a plain Deployment, autoscaling, monitoring, isolation.

Pure but for reading the packaged templates. Invariant: whatever a template puts out is a quoted YAML scalar, unless
the template says `raw`; no template can forget it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from crosslogic.catalog.gpus import find_gpu
from crosslogic.compass.manifests.autoscaling import Thresholds, thresholds
from crosslogic.compass.manifests.model import Autoscaler, DeploymentPlan, Manifest, Surroundings, checked
from crosslogic.compass.manifests.names import argument, dns_label, label_value, scalar
from crosslogic.compass.manifests.objectives import (
    KV_CACHE,
    RUNNING,
    SERVED,
    WAITING,
    dashboard,
    objectives,
    selector,
)

_HELM = "{{- range $name, $resource := .Values.resources }}\n---\n{{ toYaml $resource }}\n{{- end }}\n"
_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


class Trigger(msgspec.Struct, frozen=True):
    """What KEDA watches. `Value`: the figure is a mean; else it is a sum over all replicas."""

    name: str
    query: str
    threshold: str
    type: str = "AverageValue"


class Quota(msgspec.Struct, frozen=True):
    """Of a tenant's namespace; its deployments together."""

    gpus: int
    pods: int


class _Raw(str):
    """Text that stands in a template's output as it is."""

    __slots__ = ()


def render(plan: DeploymentPlan, around: Surroundings = Surroundings(), quota: Quota | None = None) -> list[Manifest]:  # noqa: B008 - frozen
    """The Kubernetes objects, in the order in which they are to be applied. Raises InvalidRequest."""
    context = _context(checked(plan), around, quota)
    names = ["namespace", "resourcequota", "networkpolicy", _serving(around)]
    names += ["service", "metrics", "servicemonitor", "poddisruptionbudget"]
    names += {Autoscaler.KEDA: ["scaledobject"], Autoscaler.HPA: ["hpa"], Autoscaler.NONE: []}[around.autoscaler]
    names += ["ingress"] if around.ingress_host else []
    names += ["prometheusrule", "dashboard"]
    return [_manifest(name, context) for name in names if not (name == "service" and around.kserve)]


def plain_files(plan: DeploymentPlan, around: Surroundings = Surroundings()) -> list[Manifest]:  # noqa: B008 - frozen
    """What is no Kubernetes object: settings of engine and adapter, a Helm chart, the plan for our own nodes."""
    objects = render(plan, around)
    context = _context(plan, around, None)
    environment = _environment()
    made = {
        name: environment.get_template(f"{name}.j2").render(context) + "\n" for name in ("vllm.yaml", "adapter.yaml")
    }
    chart = environment.get_template("Chart.yaml.j2").render(context) + "\n"
    values = {"resources": {each.path.removesuffix(".yaml"): _parsed(each.text) for each in objects}}
    own = msgspec.json.format(msgspec.json.encode(own_nodes(plan)), indent=2).decode() + "\n"
    return [
        *(Manifest(f"files/{name}", "", text) for name, text in made.items()),
        Manifest("files/crosslogic-deployment.json", "", own),
        Manifest("helm/Chart.yaml", "", chart),
        Manifest("helm/values.yaml", "", yaml.safe_dump(values, sort_keys=False, allow_unicode=False)),
        Manifest("helm/templates/resources.yaml", "", _HELM),
    ]


def own_nodes(plan: DeploymentPlan) -> dict[str, Any]:
    """The bodies of `/admin/models` and `/admin/deployments`, to run the plan on nodes with our agent."""
    card: dict[str, Any] = {"id": plan.model, "version": plan.model_version, "quantization": plan.precision}
    if plan.max_model_len is not None:
        card["context_window"] = plan.max_model_len
    config: dict[str, Any] = {"tensor_parallelism": plan.tensor_parallel, "max_batch_size": plan.max_num_seqs}
    if plan.quantization is not None:
        config["quantization"] = plan.quantization
    deployment = {"model": plan.model, "version": plan.model_version, "replicas": plan.max_replicas, "config": config}
    return {"model": card, "deployment": deployment}


def namespace_of(plan: DeploymentPlan, around: Surroundings) -> str:
    return dns_label(around.namespace or f"tenant-{plan.tenant}")


def workload_of(plan: DeploymentPlan) -> str:
    """The Deployment that is scaled: KServe puts `predictor` behind the name of an InferenceService."""
    return f"{dns_label(plan.name)}-predictor"


def front_of(plan: DeploymentPlan) -> str:
    """The service that callers and the ingress reach, on port 8080."""
    return f"{dns_label(plan.name)}-metrics"


def hosts_of(plan: DeploymentPlan, around: Surroundings) -> set[str]:
    """Names by which the deployment's services are reached; a node of the gateway at one of them is this deployment."""
    namespace = namespace_of(plan, around)
    found = set() if around.ingress_host is None else {around.ingress_host.lower()}
    for service in (front_of(plan), workload_of(plan), dns_label(plan.name)):
        found |= {f"{service}.{namespace}{end}" for end in ("", ".svc", ".svc.cluster.local")}
    return found


def engine_settings(plan: DeploymentPlan) -> dict[str, Any]:
    """vLLM's options, by their long names."""
    settings: dict[str, Any] = {
        "model": plan.model,
        "served-model-name": plan.model,
        "revision": plan.model_version,
        "tensor-parallel-size": plan.tensor_parallel,
        "gpu-memory-utilization": plan.gpu_memory_utilization,
        "max-num-seqs": plan.max_num_seqs,
    }
    if plan.precision in _DTYPES:
        settings["dtype"] = _DTYPES[plan.precision]
    if plan.quantization is not None:
        settings["quantization"] = plan.quantization
    if plan.max_model_len is not None:
        settings["max-model-len"] = plan.max_model_len
    return {**settings, "host": "0.0.0.0", "port": 8080}  # noqa: S104 - in its pod


def _arguments(plan: DeploymentPlan, around: Surroundings) -> list[str]:
    """Each option and its value are one argument, so that no value is taken for an option."""
    if not around.simulator:
        return [f"--{name}={argument(str(value))}" for name, value in engine_settings(plan).items()]
    options: dict[str, Any] = {
        "model": plan.model,
        "gpu": plan.gpu_type,
        "tp": plan.tensor_parallel,
        "max-num-seqs": plan.max_num_seqs,
        "startup-delay-s": 10,
        "host": "0.0.0.0",  # noqa: S104 - in its pod
        "port": 8080,
    }
    if plan.max_model_len is not None:
        options["max-model-len"] = plan.max_model_len
    return [f"--{name}={argument(str(value))}" for name, value in options.items()]


def _triggers(at: Thresholds, select: str) -> list[Trigger]:
    found = [
        Trigger("running", f"sum({RUNNING}{select})", str(at.running)),
        Trigger("waiting", f"sum({WAITING}{select})", str(at.waiting)),
        Trigger("kv-cache", f"avg({KV_CACHE}{select})", f"{at.kv_cache:g}", "Value"),
    ]
    if at.rate is not None:
        found.append(Trigger("rate", f"sum(rate({SERVED}{select}[2m]))", f"{at.rate:g}"))
    return found


def _context(plan: DeploymentPlan, around: Surroundings, quota: Quota | None) -> dict[str, Any]:
    name, namespace = dns_label(plan.name), namespace_of(plan, around)
    gpu = find_gpu(plan.gpu_type)
    at = thresholds(plan)
    select = selector(namespace, front_of(plan))
    nvidia = gpu is not None and gpu.manufacturer == "NVIDIA"
    secrets = [("HF_TOKEN", around.weights_token), ("VLLM_API_KEY", around.api_key)]
    monitored = {around.monitoring_namespace: None, around.ingress_namespace: None}
    surge = plan.gpus_per_replica * (plan.max_replicas + 1)  # one more while replicas are exchanged
    return {
        "plan": plan,
        "around": around,
        "at": at,
        "name": name,
        "namespace": namespace,
        "workload": workload_of(plan),
        "front": front_of(plan),
        "port": 80,
        "org_label": label_value(plan.org_id),
        "labels": {
            "app.kubernetes.io/name": name,
            "app.kubernetes.io/managed-by": "crosslogic",
            "crosslogic.ai/deployment": name,
            "crosslogic.ai/org": label_value(plan.org_id),
        },
        "annotations": {
            "crosslogic.ai/model": plan.model,
            "crosslogic.ai/configuration": plan.configuration,
            "crosslogic.ai/evidence": plan.forecast.evidence,
        },
        "gpu_resource": "nvidia.com/gpu" if gpu is None or nvidia else "amd.com/gpu",
        "gpu_products": [each for each in gpu.aliases if each.startswith(("NVIDIA-", "Tesla-"))]
        if gpu and nvidia
        else [],
        "arguments": _arguments(plan, around),
        "engine": engine_settings(plan),
        "secrets": [(variable, secret) for variable, secret in secrets if secret is not None],
        "triggers": _triggers(at, select),
        "pod_metrics": [(RUNNING, str(at.running)), (WAITING, str(at.waiting))],
        "metrics": [RUNNING, WAITING],
        "objectives": objectives(plan, select),
        "select": select,
        "sources": list(monitored),
        "dashboard": dashboard(plan, name, select),
        "quota": quota or Quota(0 if around.simulator else surge, 2 * (plan.max_replicas + 1)),
    }


def _serving(around: Surroundings) -> str:
    return "inferenceservice" if around.kserve else "deployment"


def _manifest(name: str, context: Mapping[str, Any]) -> Manifest:
    """One object. Its own name and labels are those of the deployment, but for a few."""
    own = {**context, "object_name": context["name"]}
    template = name
    if name in ("deployment", "service"):
        own["object_name"] = context["workload"]
    elif name == "metrics":
        template = "service"
        own |= {"object_name": context["front"], "port": 8080}
        own["labels"] = {**context["labels"], "crosslogic.ai/metrics": context["name"]}
    elif name == "dashboard":
        own["object_name"] = f"{context['name']}-dashboard"
        own["labels"] = {**context["labels"], "grafana_dashboard": "1"}
    elif name == "resourcequota":
        own["object_name"] = "crosslogic"
    text = _environment().get_template(f"{template}.yaml.j2").render(own) + "\n"
    return Manifest(f"{name}.yaml", text.split("kind: ", 1)[1].split("\n", 1)[0], text)


def _parsed(text: str) -> Any:
    """The C parser where there is one: it is ten times as fast."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe


def _quoted(value: object) -> str:
    if isinstance(value, _Raw):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return scalar(value)
    raise TypeError(f"a {type(value).__name__} is no scalar")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("crosslogic.compass.manifests"),
        undefined=StrictUndefined,
        finalize=_quoted,
        autoescape=False,  # noqa: S701 - YAML, not HTML: `finalize` quotes whatever is put out
        trim_blocks=False,
    )
    environment.filters["raw"] = _Raw
    return environment
