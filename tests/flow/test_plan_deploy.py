"""`crosslogic plan --deploy` and `crosslogic deployments`, the whole way: sentence, recommendation, dry run, question,
apply, status, test prompt, another revision, roll-back, delete; on a running cloud and an API server that remembers.
"""

import io
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.fake_kubernetes import TOKEN, State, kubernetes_server
from tests.flow.clouds import Command
from tests.flow.conftest import start_up
from tests.flow.processes import Program
from tests.planner_samples import LLAMA
from tests.ports import free_port

WISH = "a chatbot for 1000 users with Llama-3.1-8B-Instruct on H100, first token within 500 ms"
SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/tenant-default/inferenceservices"


@pytest.fixture(scope="module")
def state() -> Iterator[tuple[str, State]]:
    with kubernetes_server() as found:
        yield found


@pytest.fixture(scope="module")
def engine_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulated vLLM, as it would be behind the deployment's service."""
    directory = tmp_path_factory.mktemp("engine")
    ready = directory / "ready.json"
    arguments = ["simulate", "--model", LLAMA, "--port", free_port(), "--ready-file", ready]
    program = Program(arguments, directory)
    program.wait_for(ready.exists)
    yield json.loads(ready.read_text())["base_url"]
    program.kill()


@pytest.fixture(scope="module")
def data_dir(state: tuple[str, State], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of `crosslogic up` without nodes, with a cluster and dashboards."""
    directory = tmp_path_factory.mktemp("cloud")
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": state[0]}}],
                "users": [{"name": "u", "user": {"token": TOKEN}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    env = {
        "CROSSLOGIC_COMPASS__KUBECONFIG": str(kubeconfig),
        "CROSSLOGIC_COMPASS__GRAFANA_URL": "https://grafana.example.com",
    }
    running = start_up(directory, "--nodes", 0, env=env)
    yield directory / "data"
    running.program.kill()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_sentence_becomes_a_deployment_that_answers(
    crosslogic: Command, state: tuple[str, State], engine_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, name = state[1], f"support-{secrets.token_hex(3)}"
    cluster.engine_url, held = None, set(cluster.objects)
    asked = ("plan", WISH, "--deploy", "--name", name, "--no-ask")
    assert "add --yes" in crosslogic(*asked, code=1)  # nobody is there to be asked
    assert set(cluster.objects) == held

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    said = crosslogic(*asked, "--simulated")
    assert "InferenceService" in said
    assert "the cluster takes all of it (dry run)" in said
    assert "not applied; it stays planned" in said
    assert set(cluster.objects) == held
    assert any(dry_run for verb, _, dry_run in cluster.calls if verb == "patch")

    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    said = crosslogic(*asked, "--simulated")
    assert f"{name} is applied, revision 2" in said
    assert f"ready at http://{name}.example.com" in said
    assert f"https://grafana.example.com/d/crosslogic-{name}" in said
    assert "simulate" in str(cluster.objects[f"{SERVICES}/{name}"])
    monkeypatch.setattr("sys.stdin", io.StringIO())

    row = crosslogic("deployments", "list", "default", "--json")[-1]
    assert (row["name"], row["state"], row["applied_revision"]) == (name, "applied", 2)
    ref = row["id"]
    assert ref in crosslogic("deployments", "list", "default", "--state", "applied")
    assert "nothing was planned" in crosslogic("deployments", "list", "default", "--state", "failed")
    status = crosslogic("deployments", "status", ref)
    assert status.startswith(f"ready; http://{name}.example.com")
    assert "Running" in status

    assert "no pod that answers yet" in crosslogic("deployments", "test", ref, code=1)
    cluster.engine_url = engine_url
    answered = crosslogic("deployments", "test", ref, "What is the capital of France?", "--json")
    assert answered["model"] == LLAMA
    assert answered["text"]
    assert answered["output_tokens"] > 0
    assert answered["latency_ms"] > 0

    again = crosslogic(*asked, "--simulated", "--yes", "--set", "traffic.peak_qps=300", "--json")
    assert again["deployment"]["revision"] == 3
    assert again["deployment"]["status"]["ready"] is True
    assert again["recommendation"]["options"][0]["sizing"]["replicas"] > 1
    history = crosslogic("deployments", "revisions", ref, "--json")
    assert [each["revision"] for each in history] == [3, 2, 1]
    assert history[0]["cost_per_month_usd"] > history[1]["cost_per_month_usd"]
    assert [each["applied_at"] is not None for each in history] == [True, True, False]
    peak = cluster.objects[f"{SERVICES}/{name}"]["spec"]["predictor"]["maxReplicas"]

    assert f"{name} is applied, revision 4" in crosslogic("deployments", "rollback", ref)
    assert cluster.objects[f"{SERVICES}/{name}"]["spec"]["predictor"]["maxReplicas"] < peak
    assert crosslogic("deployments", "deploy", ref, "--dry-run", "--json")["state"] == "applied"
    assert f"{name} is deleted" in crosslogic("deployments", "delete", ref)
    left = {each["kind"] for path, each in cluster.objects.items() if path not in held}
    assert left <= {"Namespace", "ResourceQuota"}
    assert "no window was judged" in crosslogic("deployments", "outcomes", ref)


def test_what_the_cluster_refuses_is_said_before_anything_is_applied(
    crosslogic: Command, state: tuple[str, State]
) -> None:
    cluster = state[1]
    held = set(cluster.objects)
    cluster.forbidden.add(("patch", "inferenceservices"))
    try:
        said = crosslogic("plan", WISH, "--deploy", "--name", "forbidden", "--yes", "--json", code=1)
    finally:
        cluster.forbidden.clear()
    assert "may not patch inferenceservices" in said
    assert set(cluster.objects) == held


def test_on_nodes_of_our_own(crosslogic: Command) -> None:
    said = crosslogic("plan", WISH, "--deploy", "--on", "nodes", "--name", "fleet", "--yes", "--no-ask")
    assert "fleet is applied, revision 1" in said
    assert "start others with `crosslogic agent --deployment dep_" in said
    (made,) = crosslogic("models", "deployments", "--json")
    assert made["model_id"] == LLAMA
    assert made["replicas"] >= 1
    row = next(each for each in crosslogic("deployments", "list", "default", "--json") if each["name"] == "fleet")
    assert f"--deployment {made['id']}" in crosslogic("deployments", "status", row["id"])
    assert "fleet is deleted" in crosslogic("deployments", "delete", row["id"])
    (made,) = crosslogic("models", "deployments", "--json")
    assert made["status"] in ("draining", "retired")


def test_what_cannot_be_deployed_is_one_sentence(crosslogic: Command) -> None:
    assert "choose kubernetes or nodes" in crosslogic("plan", WISH, "--deploy", "--on", "moon", "--yes", code=1)
    impossible = ("--set", "budget.per_month_pusd=1000000000000")
    assert "nothing to deploy" in crosslogic("plan", WISH, "--deploy", "--yes", *impossible, code=1)
    assert "leave --specification out" in crosslogic("plan", WISH, "--deploy", "--specification", code=1)
    assert "there is no" in crosslogic("plan", WISH, "--deploy", "--yes", "--org", "nobody", "--json", code=1)
