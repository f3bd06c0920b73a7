"""What tests of manifests share. `python -m tests.manifest_samples` writes the golden files anew."""

from pathlib import Path

from crosslogic.compass.manifests.model import (
    Autoscaler,
    DeploymentPlan,
    Expected,
    Manifest,
    PlannedForecast,
    SecretKey,
    Surroundings,
    Targets,
)
from crosslogic.compass.manifests.render import plain_files, render

GOLDEN = Path(__file__).parent / "manifest_golden"
PLAN = DeploymentPlan(
    name="support-chat",
    org_id="org_0123",
    tenant="acme",
    model="meta-llama/Llama-3.1-8B-Instruct",
    gpu_type="h100_sxm",
    configuration="meta-llama/Llama-3.1-8B-Instruct@1xh100_sxm/fp8/vllm",
    precision="fp8",
    quantization="fp8",
    min_replicas=2,
    max_replicas=4,
    max_model_len=8192,
    slo=Targets(300.0, 25.0, 7000.0),
    forecast=PlannedForecast(
        Expected(140.0, 100.0, 190.0), Expected(16.0, 14.0, 18.0), Expected(4100.0, 3600.0, 4700.0), None, "calibrated"
    ),
    rate_per_replica=12.0,
    scale_out_at=9.5,
    running_at_peak=48.0,
    startup_s=75.0,
    cost_per_hour_pusd=10 * 10**12,
    cost_per_month_pusd=7300 * 10**12,
)
KSERVE = Surroundings(
    ingress_host="chat.inference.example.com",
    tls_secret="chat-tls",
    weights_token=SecretKey("weights", "token"),
    api_key=SecretKey("engine", "key"),
    pull_secret="registry",
)
SIMULATED = Surroundings(kserve=False, simulator=True, autoscaler=Autoscaler.HPA)
VARIANTS = {"kserve.yaml": (PLAN, KSERVE), "simulated.yaml": (PLAN, SIMULATED)}


def golden() -> dict[str, str]:
    found = {
        name: "".join(f"---\n{each.text}" for each in render(plan, around)) for name, (plan, around) in VARIANTS.items()
    }
    return {**found, "files.txt": "".join(f"=== {each.path}\n{each.text}" for each in plain_without_values())}


def plain_without_values() -> list[Manifest]:
    """Helm's values hold all objects once more."""
    return [each for each in plain_files(PLAN, KSERVE) if each.path != "helm/values.yaml"]


if __name__ == "__main__":
    for name, text in golden().items():
        (GOLDEN / name).write_text(text, "utf-8")
