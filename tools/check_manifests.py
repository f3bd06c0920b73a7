"""Holds the golden manifests against the real definitions of custom resources: `tools/check_manifests.py CRD.yaml …`.

The files are the projects' own (KServe `config/crd/full/serving.kserve.io_inferenceservices.yaml`, KEDA
`config/crd/bases/keda.sh_scaledobjects.yaml`, the Prometheus Operator's `monitoring.coreos.com_*.yaml`), which are too
large to keep here; `tests/manifest_schemas` has what we use of them. Unknown fields are errors.
"""

import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml

GOLDEN = Path(__file__).parent.parent / "tests" / "manifest_golden"


def main(files: list[str]) -> int:
    if not files:
        sys.stderr.write("usage: tools/check_manifests.py CRD.yaml …\n")
        return 2
    schemas = {key: schema for file in files for key, schema in _schemas(Path(file)).items()}
    checked, wrong = 0, 0
    for file in sorted(GOLDEN.glob("*.yaml")):
        for found in yaml.safe_load_all(file.read_text("utf-8")):
            schema = schemas.get((found["apiVersion"], found["kind"])) if found else None
            if schema is None:
                continue
            checked += 1
            for error in jsonschema.Draft202012Validator(schema).iter_errors(found):
                wrong += 1
                where = ".".join(map(str, error.absolute_path))
                sys.stdout.write(f"{file.name}: {found['kind']} {where}: {error.message[:200]}\n")
    sys.stdout.write(f"{checked} objects checked, {wrong} errors\n")
    return 1 if wrong or not checked else 0


def _schemas(file: Path) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for crd in yaml.safe_load_all(file.read_text("utf-8")):
        spec = crd["spec"]
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def _strict(node: Any) -> Any:
    """The schema as JSON Schema has it, refusing fields that it does not name."""
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    strict = {name: _strict(value) for name, value in node.items()}
    if strict.get("x-kubernetes-int-or-string"):
        strict.pop("anyOf", None)
        strict["type"] = ["integer", "string"]
    open_ended = strict.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in strict
    if strict.get("type") == "object" and isinstance(strict.get("properties"), dict) and not open_ended:
        strict["additionalProperties"] = False
    return strict


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
