"""Processes of the bench: on their cores, counted with all they start, and gone at the end, and the pass-through."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from bench.load import Pool, chat_request
from bench.peers import passthrough
from bench.probe import Cores, command_line, cpu_ns, move_aside, rss_bytes, tree
from bench.processes import DidNotStart, Processes, free_port, http_get
from bench.target import Site

SLEEPER = "import time; time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}])"
CORE = sorted(os.sched_getaffinity(0))[0]


def wait_for_child(pid: int) -> list[int]:
    deadline = time.monotonic() + 10
    while len(found := tree(pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def test_a_tree_is_on_its_core_and_ends_with_the_block(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        process = processes.start("parent", [sys.executable, "-c", PARENT], [CORE])
        pids = wait_for_child(process.pid)
        assert len(pids) == 2
        assert {tuple(os.sched_getaffinity(pid)) for pid in pids} == {(CORE,)}
        assert SLEEPER in command_line(pids[1])
        assert rss_bytes(pids) > rss_bytes(pids[:1]) > 2**20
    assert all(gone(pid) for pid in pids)


def test_a_tree_ends_also_when_the_block_fails(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupted() -> None:
        with Processes(tmp_path) as processes:
            pids.extend(wait_for_child(processes.start("parent", [sys.executable, "-c", PARENT], [CORE]).pid))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_what_does_not_come_up_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        process = processes.start("bad", [sys.executable, "-c", "raise SystemExit('no such file')"], [CORE])
        with pytest.raises(DidNotStart, match="bad exited 1: no such file"):
            processes.wait_ready("bad", process, f"http://127.0.0.1:{free_port()}/health", 10)
        with pytest.raises(DidNotStart, match="nothing"):
            processes.start("nothing", [tmp_path / "nothing"], [CORE])
        with pytest.raises(DidNotStart, match="exited 3"):
            processes.run("quits", [sys.executable, "-c", "raise SystemExit(3)"])


def test_cpu_time_counts_ended_threads_to_the_nanosecond() -> None:
    code = (
        "import threading, time\n"
        "def burn():\n    while time.thread_time() < 0.2: pass\n"
        "thread = threading.Thread(target=burn); thread.start(); thread.join()\n"
        "print('done', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        spent = cpu_ns([process.pid])
        process.kill()
    assert 200_000_000 <= spent < 2_000_000_000
    with pytest.raises(ProcessLookupError):
        cpu_ns([process.pid])


def test_a_process_is_moved_aside_with_its_threads() -> None:
    code = "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); print(1, flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        move_aside(process.pid, (CORE,))
        tasks = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
        placed = [(tuple(os.sched_getaffinity(task)), os.getpriority(os.PRIO_PROCESS, task)) for task in tasks]
        process.kill()
    assert placed == [((CORE,), 19), ((CORE,), 19)]


def test_pass_through_relays_answers_and_streams_whole_to_both_upstreams(tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    with Processes(tmp_path) as processes, ExitStack() as end:
        argv = [sys.executable, "-m", "bench.upstream", "--chunks", "4", "--interval-ms", "2"]
        servers = [processes.start(f"up{port}", [*argv, "--port", str(port)], [CORE]) for port in ports]
        for port, server in zip(ports, servers, strict=True):
            processes.wait_ready(f"up{port}", server, f"http://127.0.0.1:{port}/health", 20)
        running = passthrough.start(Site(processes, Cores((CORE,), (CORE,)), ports, tmp_path, None, end))
        with Pool(running.port, 4) as pool:
            plain = pool.closed(chat_request(running.port, {}), count=40)
            streams = pool.closed(chat_request(running.port, {}, stream_chunks=4), per_connection=2)
        served = [http_get(f"http://127.0.0.1:{port}/stats")[1] for port in ports]
    assert (plain.done, plain.failed, streams.done, streams.failed) == (40, 0, 8, 0)
    assert [b'"requests":24' in one and b'"cut":0' in one for one in served] == [True, True]
