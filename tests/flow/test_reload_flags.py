"""What a changed configuration file does to a running cloud without a restart."""

from pathlib import Path

from tests.flow import wire
from tests.flow.clouds import CHAT, LLAMA, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually


def test_keys_can_be_switched_off_and_on(tmp_path: Path) -> None:
    config = tmp_path / "crosslogic.yaml"
    config.write_text("enable_auth: true\n")
    cloud = start_up(tmp_path, "--config", config, "--nodes", 1)
    try:

        def status() -> int:
            return wire.ask(cloud.url, CHAT, chat(model=LLAMA, max_tokens=1)).status

        assert status() == 401
        config.write_text("enable_auth: false\nscheduling: {strategy: round-robin}\n")
        eventually(lambda: status() == 200)
        config.write_text("enable_auth: true\nenable_caching: true\n")
        eventually(lambda: status() == 401)
        config.write_text(
            "enable_caching: true\nanomaly_detection: {enabled: true}\ncapacity_planning: {enabled: true}\n"
        )
        eventually(lambda: "reloaded capacity_planning, anomaly_detection" in cloud.program.log.read_text())
        eventually(lambda: "changes of enable_caching take effect after a restart" in cloud.program.log.read_text())
    finally:
        cloud.program.kill()
