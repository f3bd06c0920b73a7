"""The pipelined connection on real servers: order, errors, sign-in, TLS, loss, healing."""

import asyncio
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import hiredis
import pytest

from crosslogic.kernel.errors import Unavailable
from crosslogic.net.redis import MAX_WAITING, RedisConnection
from tests.contract.limits_rig import Wire, eventually, own_redis


async def test_replies_come_in_the_order_of_the_commands_however_they_were_sent(
    redis_url: str, redis_prefix: str
) -> None:
    connection = await RedisConnection.connect(redis_url)
    called: list[object] = []
    key = f"{redis_prefix}n"
    futures = [connection.execute("INCR", key) for _ in range(100)]
    connection.call(called.append, "INCR", key)
    futures += [connection.execute("INCR", key) for _ in range(100)]
    assert await asyncio.gather(*futures) == [*range(1, 101), *range(102, 202)]
    assert called == [101]
    await connection.execute("DEL", key)
    await connection.close()


async def test_large_and_binary_values_pass_unchanged(redis_url: str, redis_prefix: str) -> None:
    connection = await RedisConnection.connect(redis_url)
    value = bytes(range(256)) * 8_000
    await connection.execute("SET", f"{redis_prefix}v", value, "PX", 10_000)
    assert await connection.execute("GET", f"{redis_prefix}v") == value
    assert await connection.execute("GET", f"{redis_prefix}missing") is None
    await connection.close()


async def test_a_refused_command_fails_alone(redis_url: str, redis_prefix: str) -> None:
    connection = await RedisConnection.connect(redis_url)
    before, wrong, after = (connection.execute(*c) for c in (("PING",), ("NOSUCH",), ("PING",)))
    assert await before == b"PONG"
    with pytest.raises(hiredis.ReplyError, match="NOSUCH"):
        await wrong
    assert await after == b"PONG"
    await connection.close()


async def test_a_cancelled_caller_does_not_shift_the_replies_of_others(redis_url: str) -> None:
    connection = await RedisConnection.connect(redis_url)
    first, second = connection.execute("ECHO", "first"), connection.execute("ECHO", "second")
    first.cancel()
    assert await second == b"second"
    await connection.close()


async def test_it_signs_in_and_selects_its_database(tmp_path: Path) -> None:
    async with own_redis(tmp_path, "--requirepass", "s3cret/&") as server:
        address = f"127.0.0.1:{server.port}"
        connection = await RedisConnection.connect(f"redis://default:s3cret%2F%26@{address}/3")
        await connection.execute("SET", "k", "v")
        assert b"db=3" in await connection.execute("CLIENT", "INFO")
        await connection.close()
        for wrong in (f"redis://:wr0ng@{address}", f"redis://{address}", f"redis://:s3cret%2F%26@{address}/99"):
            with pytest.raises(Unavailable) as refused:
                await RedisConnection.connect(wrong)
            assert "wr0ng" not in str(refused.value)
            assert "s3cret" not in str(refused.value)


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    async with own_redis(tmp_path, "--unixsocket", str(path)):
        connection = await RedisConnection.connect(f"unix://{path}?db=2")
        assert await connection.execute("PING") == b"PONG"
        await connection.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
async def test_tls_is_spoken_and_the_certificate_checked(tmp_path: Path) -> None:
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(  # noqa: ASYNC221 - once, before anything runs
        ["openssl", *request.split(), "-keyout", str(private), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, private)
    async with own_redis(tmp_path) as server:
        wire = Wire(server.port)
        await wire.start(ssl=context)
        connection = await RedisConnection.connect(f"rediss://127.0.0.1:{wire.port}?ssl_ca_certs={certificate}")
        assert await connection.execute("PING") == b"PONG"
        await connection.close()
        with pytest.raises(Unavailable, match="certificate"):
            await RedisConnection.connect(f"rediss://127.0.0.1:{wire.port}")
        await wire.cut()


async def test_nothing_listening_is_unavailable_at_once() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        await RedisConnection.connect("redis://127.0.0.1:1")


async def test_a_connection_that_is_not_required_now_comes_up_with_its_server(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as server:
        server.kill()
        connection = await RedisConnection.connect(server.url, required=False)
        assert not connection.connected
        await server.start()
        await eventually(lambda: connection.connected)
        assert await connection.execute("PING") == b"PONG"
        await connection.close()


async def test_a_server_that_is_not_redis_is_unavailable(tmp_path: Path) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unavailable):
        await RedisConnection.connect(f"redis://127.0.0.1:{port}", connect_timeout_s=2.0)
    server.close()


async def test_a_lost_connection_fails_the_waiting_at_once_and_heals_by_itself(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as server:
        connection = await RedisConnection.connect(server.url)
        server.pause()
        waiting = [connection.execute("PING") for _ in range(10)]
        await asyncio.sleep(0.05)
        server.kill()
        began_s = time.monotonic()
        failures = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(failure, Unavailable) for failure in failures)
        with pytest.raises(Unavailable):
            await connection.execute("PING")
        assert time.monotonic() - began_s < 4.0
        assert not connection.connected
        generation = connection.generation
        await server.start()
        await eventually(lambda: connection.connected)
        assert connection.generation == generation + 1
        assert await connection.execute("PING") == b"PONG"
        await connection.close()


async def test_a_server_that_stands_still_is_given_up_and_found_again(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as server:
        connection = await RedisConnection.connect(server.url, connect_timeout_s=0.3, answer_timeout_s=0.2)
        server.pause()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(connection.execute("PING"), 3.0)
        server.resume()
        await eventually(lambda: connection.connected)
        assert await connection.execute("PING") == b"PONG"
        await asyncio.sleep(0.5)  # silence without a question is no reason to give up
        assert connection.connected
        await connection.close()


async def test_the_queue_of_waiting_commands_is_bounded(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as server:
        connection = await RedisConnection.connect(server.url)
        server.pause()
        waiting = [connection.execute("PING") for _ in range(MAX_WAITING)]
        with pytest.raises(Unavailable):
            await connection.execute("PING")
        server.resume()
        assert set(await asyncio.gather(*waiting)) == {b"PONG"}
        await connection.close()


async def test_closing_fails_what_waits_and_stops_healing(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as server:
        connection = await RedisConnection.connect(server.url)
        server.pause()
        waiting = connection.execute("PING")
        await asyncio.sleep(0.01)
        await connection.close()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, 1.0)
        server.resume()
        await asyncio.sleep(0.2)
        assert not connection.connected
