"""A Kubernetes cluster through its own client: server-side apply, and errors as people say them.

Needs the extra `kubernetes`. The client waits synchronously, so each call has a thread and a deadline. Invariant: we
own our fields as `crosslogic`; what others own is taken from them only where that was asked for.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import urllib3
from kubernetes import client, config

from crosslogic.compass.deployments.model import Answered, ClusterStatus, ObjectRef, PodStatus
from crosslogic.kernel.errors import (
    ConfigurationError,
    Conflict,
    CrossLogicError,
    Forbidden,
    InvalidRequest,
    Unavailable,
)

FIELD_MANAGER = "crosslogic"
TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 60.0  # of a test prompt
_PLURALS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "InferenceService": "inferenceservices",
    "Ingress": "ingresses",
    "Namespace": "namespaces",
    "NetworkPolicy": "networkpolicies",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "PrometheusRule": "prometheusrules",
    "ResourceQuota": "resourcequotas",
    "ScaledObject": "scaledobjects",
    "Service": "services",
    "ServiceMonitor": "servicemonitors",
}
_FROM = {
    "InferenceService": "KServe",
    "ScaledObject": "KEDA",
    "ServiceMonitor": "the Prometheus operator",
    "PrometheusRule": "the Prometheus operator",
}


class KubernetesCluster:
    """One cluster, reached by one identity."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._host = str(api.configuration.host).rstrip("/")

    async def apply(self, objects: Sequence[Mapping[str, Any]], *, dry_run: bool = False, force: bool = False) -> None:
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        if dry_run:
            query["dryRun"] = "All"
        fresh: set[str] = set()
        for body in objects:
            ref = ObjectRef.of(body)
            if dry_run and ref.kind == "Namespace" and await self._get(_path(ref)) is None:
                fresh.add(ref.name)
            if dry_run and ref.namespace in fresh:
                continue  # nothing can be asked of a namespace that is not there yet
            await self._call("PATCH", f"{_path(ref)}?{urlencode(query)}", ref, "patch", body)

    async def delete(self, objects: Sequence[ObjectRef]) -> int:
        removed = 0
        for ref in objects:
            found = await self._call("DELETE", f"{_path(ref)}?propagationPolicy=Background", ref, "delete", absent=True)
            removed += found is not None
        return removed

    async def status(self, namespace: str, deployment: str, serving: ObjectRef) -> ClusterStatus:
        found = await self._call("GET", _path(serving), serving, "get", absent=True)
        query = urlencode({"labelSelector": f"crosslogic.ai/deployment={deployment}", "limit": 500})
        listing = ObjectRef("v1", "Pod", namespace, deployment)
        pods = await self._call("GET", f"/api/v1/namespaces/{quote(namespace)}/pods?{query}", listing, "list")
        seen = tuple(_pod(each) for each in (pods or {}).get("items", []))
        ready_pods = sum(each.ready for each in seen)
        if found is None:
            return ClusterStatus(False, ready_pods, seen, None, f"{serving} is not in the cluster")
        ready, message = _ready(found)
        return ClusterStatus(ready and ready_pods > 0, ready_pods, seen, _endpoint(found, serving), message)

    async def ask(self, namespace: str, service: str, port: int, body: Mapping[str, Any]) -> Answered:
        """Through the API server's proxy, so that it works from outside of the cluster as well."""
        ref = ObjectRef("v1", "Service", namespace, service)
        path = f"{_path(ref)}:{port}/proxy/v1/chat/completions"
        began_s = time.perf_counter()
        try:
            found = await asyncio.to_thread(self._send, "POST", path, body, "application/json", ANSWER_TIMEOUT_S)
        except client.ApiException as error:
            raise _of_engine(error, ref) from None
        except (urllib3.exceptions.HTTPError, OSError):
            raise Unavailable(f"{ref} gave no answer within {ANSWER_TIMEOUT_S:.0f} s") from None
        return _answered(found, (time.perf_counter() - began_s) * 1e3, ref)

    async def _get(self, path: str) -> dict[str, Any] | None:
        return await self._call(
            "GET", path, ObjectRef("v1", "Namespace", "", path.rsplit("/", 1)[-1]), "get", absent=True
        )

    async def _call(
        self,
        method: str,
        path: str,
        ref: ObjectRef,
        verb: str,
        body: Mapping[str, Any] | None = None,
        *,
        absent: bool = False,
    ) -> dict[str, Any] | None:
        try:
            return await asyncio.to_thread(self._send, method, path, body)
        except client.ApiException as error:
            if error.status == 404 and absent:
                return None
            raise _in_words(error, ref, verb) from None
        except (urllib3.exceptions.HTTPError, OSError):
            raise Unavailable(f"the Kubernetes API at {self._host} does not answer; {ref} was not reached") from None

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        content_type: str = "application/apply-patch+yaml",  # JSON is YAML
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        answer = self._api.call_api(method, self._host + path, headers, body, _request_timeout=timeout_s)
        data: bytes = answer.read()  # type: ignore[no-untyped-call]
        if not 200 <= answer.status < 300:
            raise client.ApiException(status=answer.status, reason=data.decode("utf-8", "replace"))
        found = msgspec.json.decode(data)
        return found if isinstance(found, dict) else {}


def kubernetes_cluster(kubeconfig: str | None = None, context: str | None = None) -> KubernetesCluster:
    """From a kubeconfig, else from inside a pod. Raises ConfigurationError."""
    settings = client.Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(kubeconfig, context, settings, False)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise ConfigurationError(f"the Kubernetes cluster is not configured: {error}; set compass.kubeconfig") from None
    settings.retries = False
    return KubernetesCluster(client.ApiClient(settings))


def _path(ref: ObjectRef) -> str:
    group = f"/apis/{ref.api_version}" if "/" in ref.api_version else f"/api/{ref.api_version}"
    place = f"/namespaces/{quote(ref.namespace, safe='')}" if ref.namespace else ""
    return f"{group}{place}/{_PLURALS[ref.kind]}/{quote(ref.name, safe='')}"


def _in_words(error: client.ApiException, ref: ObjectRef, verb: str) -> CrossLogicError:
    said = _message(error)
    if error.status == 401:
        return Unavailable("the cluster does not accept our credentials; renew those of compass.kubeconfig")
    if error.status == 403:
        group = ref.api_version.rpartition("/")[0] or "core"
        what = _PLURALS.get(ref.kind, "pods")
        if "exceeded quota" in said:
            return Conflict(f"{ref} does not fit into its quota: {said}")
        where = f"in namespace {ref.namespace}" if ref.namespace else "in the cluster"
        return Forbidden(
            f"our account may not {verb} {what} ({group}) {where}; grant it the verb {verb} on {what} there",
            code="cluster_forbidden",
        )
    if error.status == 404:
        needs = _FROM.get(ref.kind)
        if needs is not None:
            return Unavailable(f"the cluster knows no {ref.kind}; install {needs}, or choose without it")
        return Unavailable(f"{ref} cannot be placed: its namespace is not there")
    if error.status == 409:
        return Conflict(f"{ref} is also managed by somebody else: {said}; force takes those fields over")
    if error.status in (400, 422):
        return InvalidRequest(f"the cluster refuses {ref}: {said}")
    return Unavailable(f"the cluster failed at {ref} with status {error.status}; try again")


def _of_engine(error: client.ApiException, ref: ObjectRef) -> CrossLogicError:
    """Who says no to a test prompt: the cluster, or the engine behind it."""
    said = _message(error)
    if error.status == 403:
        return Forbidden(
            f"our account may not create services/proxy (core) in namespace {ref.namespace}; grant it that verb there",
            code="cluster_forbidden",
        )
    if error.status in (404, 502, 503):
        return Unavailable(f"{ref} has no pod that answers yet ({said}); look at the deployment's status")
    if error.status == 401:
        return Unavailable("the cluster does not accept our credentials; renew those of compass.kubeconfig")
    return Unavailable(f"the engine behind {ref} refuses the prompt with status {error.status}: {said}")


def _answered(found: Mapping[str, Any], latency_ms: float, ref: ObjectRef) -> Answered:
    try:
        choice = found["choices"][0]
        usage = found.get("usage") or {}
        return Answered(
            text=str(choice["message"]["content"] or ""),
            latency_ms=latency_ms,
            model=str(found.get("model", "")),
            prompt_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
            finish_reason=choice.get("finish_reason"),
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Unavailable(f"{ref} answers, but not as a model does") from None


def _message(error: client.ApiException) -> str:
    """The cluster's own sentence, bounded."""
    for text in (error.body, error.reason):
        try:
            found = json.loads(text or "")
        except (TypeError, ValueError):
            continue
        if isinstance(found, dict) and isinstance(found.get("error"), dict):  # an engine behind the proxy
            found = found["error"]
        if isinstance(found, dict) and found.get("message"):
            return str(found["message"])[:500]
    return f"status {error.status}"


def _pod(body: Mapping[str, Any]) -> PodStatus:
    status = body.get("status", {})
    containers = status.get("containerStatuses", [])
    waiting = [each["state"]["waiting"] for each in containers if "waiting" in each.get("state", {})]
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    unscheduled = conditions.get("PodScheduled", {})
    reason = waiting[0].get("reason") if waiting else None
    if reason is None and unscheduled.get("status") == "False":
        reason = unscheduled.get("message") or unscheduled.get("reason")
    return PodStatus(
        name=body["metadata"]["name"],
        phase=status.get("phase", "Unknown"),
        ready=conditions.get("Ready", {}).get("status") == "True",
        restarts=sum(each.get("restartCount", 0) for each in containers),
        reason=reason,
    )


def _ready(body: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Of an InferenceService (condition Ready) or a Deployment (condition Available)."""
    conditions = {each["type"]: each for each in body.get("status", {}).get("conditions", [])}
    found = conditions.get("Ready") or conditions.get("Available")
    if found is None:
        return False, "it has no condition yet"
    return found.get("status") == "True", found.get("message")


def _endpoint(body: Mapping[str, Any], serving: ObjectRef) -> str | None:
    url = body.get("status", {}).get("url")
    if url is not None:
        return str(url)
    return f"http://{serving.name}.{serving.namespace}.svc" if serving.kind == "Deployment" else None
