"""`crosslogic plan` and `doctor data` from the shell, with nothing running."""

import json
from pathlib import Path

import pytest
import yaml

from crosslogic.cli.main import run

SENTENCE = "I need a chatbot for 1000 users, low latency is critical"


def _specified(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert run(["plan", *arguments, "--specification", "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)["specification"]
    return found


def test_a_sentence_becomes_a_specification_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    spec = _specified(capsys, SENTENCE)
    assert (spec["use_case"], spec["users"], spec["priority"]) == ("chatbot_conversational", 1000, "latency")
    assert run(["plan", SENTENCE, "--specification", "--yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["specification"] == spec


def test_for_people_there_are_tables_findings_and_what_would_help_to_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "code completion on a FOOBAR9000 GPU", "--specification"]) == 0
    said = capsys.readouterr().out
    assert "FOOBAR9000 is no GPU that is known" in said
    assert "slo.ttft_p95_ms" in said
    assert "so 19.2 ms count" in said  # E2E binds
    assert "How many people will use it" in said


def test_fields_are_set_and_contradictions_end_with_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", SENTENCE, "--set", "slo.e2e_p95_ms=100", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["recommendation"] is None
    assert "cannot end within 100 ms" in found["findings"][0]["sentence"]
    assert run(["plan", SENTENCE, "--set", "nonsense", "--json"]) == 1
    assert "write field=value" in capsys.readouterr().err


def test_a_log_of_ones_own_gives_the_traffic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "requests.csv"
    log.write_text("time,prompt_tokens,output_tokens\n" + "".join(f"{i / 4},300,90\n" for i in range(2000)))
    traffic = _specified(capsys, SENTENCE, "--traffic", str(log))["traffic"]
    assert isinstance(traffic, dict)
    assert traffic["mean_qps"] == pytest.approx(4.0)
    assert "of requests.csv" in traffic["basis"][0]
    assert run(["plan", SENTENCE, "--traffic", str(tmp_path / "none.csv"), "--json"]) == 2


def test_without_a_terminal_nobody_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--json"]) == 1
    assert "say what is wanted" in capsys.readouterr().err


def test_doctor_data_tells_what_to_doubt(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "data"]) == 0
    said = capsys.readouterr().out
    assert "of 24 prices: it is far below what the cloud asks elsewhere" in said
    assert run(["doctor", "data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prices"] > 700


def test_the_gpus_of_the_catalogue_are_listed_without_a_cloud(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["catalog", "gpus"]) == 0
    assert "MI300X" in capsys.readouterr().out
