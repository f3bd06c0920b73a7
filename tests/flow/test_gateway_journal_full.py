"""A gateway whose journal cannot be written: nobody is served what could not be billed, no node works for nothing."""

import resource
from pathlib import Path

from tests.flow.clouds import LLAMA, chat, node_metric
from tests.flow.conftest import start_up
from tests.flow.processes import eventually

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_while_the_journal_cannot_be_written_no_node_is_asked(tmp_path: Path) -> None:
    cloud = start_up(tmp_path, "--nodes", 1)
    try:
        node = cloud.nodes(LLAMA)[0]["endpoint_url"]
        assert cloud.ask(chat(max_tokens=3)).status == 200
        before = node_metric(node, "generation_tokens")
        # As a full disk: every write of this process to a file is refused from now on.
        resource.prlimit(cloud.program.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        for stream in (False, True) * 5:
            refused = cloud.ask(chat(max_tokens=3, stream=stream))
            assert (refused.status, refused.json["error"]["code"]) == (503, "usage_not_recorded")
            assert "retry-after" in refused.headers
        assert node_metric(node, "generation_tokens") == before
        resource.prlimit(cloud.program.pid, resource.RLIMIT_FSIZE, UNLIMITED)
        served = eventually(lambda: (reply := cloud.ask(chat(max_tokens=3))).status == 200 and reply, 20)
        cloud.row(served.headers["x-request-id"])
        assert sum(row["completion_tokens"] for row in cloud.rows()) == node_metric(node, "generation_tokens")
    finally:
        cloud.program.kill()
