"""No name that a tenant chooses leaves the place in a manifest that it was put in."""

from typing import Any

import msgspec
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from crosslogic.compass.manifests.names import argument, dns_label, scalar
from crosslogic.compass.manifests.render import plain_files, render
from tests.manifest_samples import KSERVE, PLAN, SIMULATED

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
AS_THEY_COME = (Phase.explicit, Phase.generate)
HOSTILE = st.sampled_from(
    [
        '"\nkind: Secret\n#',
        'x" }\n---\napiVersion: v1',
        "$(HF_TOKEN)",
        "{{ $value }}{{ .Values.x }}",
        "{% include 'x' %}",
        "*anchor &a !!python/object",
        "--api-key=stolen",
        "' or 1=1 --",
        '"} or vector(1) #',
        "null",
        "1e3",
        "\u2028\u0085",
        "😀 名前",
    ]
)
TEXTS = st.one_of(HOSTILE, st.text(min_size=1, max_size=200)).filter(lambda t: t.isprintable() and bool(t.strip()))


def shape(value: Any) -> Any:
    """The structure without the texts in it."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


@settings(max_examples=12, deadline=None, phases=AS_THEY_COME)  # reading YAML is slow, and shrinking slower
@given(model=TEXTS, name=TEXTS, tenant=TEXTS, version=TEXTS)
def test_hostile_names_change_texts_and_nothing_else(model: str, name: str, tenant: str, version: str) -> None:
    plan = msgspec.structs.replace(PLAN, model=model, name=name, tenant=tenant, model_version=version)
    for around in (KSERVE, SIMULATED):
        made, usual = render(plan, around), render(PLAN, around)
        for each, sample in zip(made, usual, strict=True):
            assert len(list(yaml.load_all(each.text, LOADER))) == 1
            found = yaml.load(each.text, LOADER)
            assert shape(found) == shape(yaml.load(sample.text, LOADER)), each.path
            assert found["kind"] == sample.kind
            if each.kind in ("PrometheusRule", "ScaledObject"):  # what evaluates expressions sees safe names alone
                safe = sample.text.replace("support-chat", dns_label(name))
                assert each.text == safe.replace("tenant-acme", dns_label(f"tenant-{tenant}"))
        args = yaml.load(made[3].text, LOADER)["spec"]
        pod = args["predictor"] if around.kserve else args["template"]["spec"]
        assert f"--model={argument(model)}" in pod["containers"][0]["args"]
        assert "$(" not in argument(model).replace("$$", "")


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_a_scalar_is_read_back_as_it_was(text: str) -> None:
    assert yaml.load(scalar(text), LOADER) == text
    assert scalar(text).isascii()
    assert "\n" not in scalar(text)


@settings(max_examples=8, deadline=None, phases=AS_THEY_COME)
@given(model=TEXTS)
def test_the_plain_files_hold_the_name_as_it_is(model: str) -> None:
    files = {each.path: each.text for each in plain_files(msgspec.structs.replace(PLAN, model=model))}
    assert yaml.load(files["files/vllm.yaml"], LOADER)["model"] == model
    assert "{{" not in files["helm/Chart.yaml"]
