"""The server as it is really run: a process of its own, under load, with clients that misbehave, until a signal."""

from __future__ import annotations

import collections
import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from aegl.runtime import Runtime
from aegl.serving.model import Model
from aegl.serving.server import Server
from aegl.serving.service import Service
from aegl.serving.settings import Settings

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
Process = Any
"""A running server: see conftest.py."""


@pytest.fixture(scope="module")
def server(toy_file: Path, serving: Any) -> Iterator[Process]:
    """One for the tests that leave it as it is."""
    with serving(toy_file, "max_body_mb=4", "concurrency=16") as process:
        yield process


def test_it_ends_in_the_middle_of_load_with_every_request_answered_or_refused(
    toy_file: Path, serving: Any, picture: Any, encoded: Any
) -> None:
    data = [encoded(picture(seed, size), "JPEG") for seed, size in enumerate(((48, 64), (64, 48), (200, 300)))]
    outcomes: collections.Counter[str] = collections.Counter()
    stopped = threading.Event()

    def client(number: int) -> None:
        with httpx.Client(timeout=15) as session:
            while True:
                try:
                    answer = session.post(f"{server.url}/predict", content=data[number % len(data)])
                except httpx.ConnectError:
                    outcomes["refused connection"] += 1
                    return
                except httpx.HTTPError as error:
                    outcomes[f"{type(error).__name__}: {error}"] += 1
                    return
                assert answer.status_code != 200 or answer.json()["detections"]
                outcomes[f"{answer.status_code}{' after' if stopped.is_set() else ''}"] += 1

    with serving(toy_file) as server:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        stopped.set()
        code = server.end()
        for thread in threads:
            thread.join(20)
    assert code == 0, server.said
    assert outcomes.pop("200") > 50, outcomes
    assert outcomes.pop("refused connection") == 8, outcomes  # each client went on until nobody listened
    assert outcomes.keys() <= {"200 after", "503 after"}, outcomes


def test_connections_that_the_kernel_took_in_last_are_answered_too(runtime: Runtime) -> None:
    """Closing a listening socket resets them: here three come in the moment before."""
    late: list[socket.socket] = []

    class Beset(Server):
        async def _stop_listening(self, sockets: list[socket.socket]) -> None:
            for _ in range(3):
                late.append(socket.create_connection(sockets[0].getsockname()))
                late[-1].sendall(HEAD + b"Content-Length: 4\r\n\r\nbody")
            await super()._stop_listening(sockets)

    server = Beset(Service(Model(runtime, 1000), Settings()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        server.should_exit = True
        thread.join(20)
    for connection in late:
        assert connection.recv(65536).startswith(b"HTTP/1.1 503 ")
        connection.close()
    assert len(late) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_at_once(toy_file: Path, serving: Any, number: signal.Signals) -> None:
    with serving(toy_file) as server, socket.create_connection(_address(server)) as idle:
        started = time.perf_counter()
        assert server.end(number) == 0
        assert time.perf_counter() - started < 5
        assert idle.recv(10) == b""
        assert "no longer served" in (server.process.stdout.read() if server.process.stdout else "")


def _address(server: Process) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return host, int(port)


def _exchange(server: Process, *parts: bytes, pause: float = 0.0) -> bytes:
    with socket.create_connection(_address(server), timeout=15) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (HEAD + b"Content-Length: many\r\n\r\n", 400),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", 400),
        (HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_what_is_no_proper_request_is_refused(server: Process, request_: bytes, status: int) -> None:
    assert _exchange(server, request_).startswith(f"HTTP/1.1 {status} ".encode())
    assert httpx.get(f"{server.url}/v2/health/live").status_code == 200


def test_a_body_that_ends_early_harms_nobody(server: Process, picture: Any, encoded: Any) -> None:
    for _ in range(20):
        with socket.create_connection(_address(server)) as connection:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\nhalf")
    assert httpx.post(f"{server.url}/predict", content=encoded(picture())).status_code == 200
    assert "Traceback" not in "".join(server.said)


def test_a_client_reads_why_its_long_body_is_refused(server: Process) -> None:
    answer = httpx.post(f"{server.url}/predict", content=bytes(6_000_000))
    assert answer.status_code == 413
    assert answer.json()["error"] == "the body is longer than 4 MiB (max_body_mb)"


@pytest.mark.slow
def test_a_stalled_body_is_given_up_while_others_are_served(server: Process, picture: Any, encoded: Any) -> None:
    with socket.create_connection(_address(server), timeout=15) as stalled:
        stalled.sendall(HEAD + b"Content-Length: 1000\r\n\r\nhalf")
        assert httpx.post(f"{server.url}/predict", content=encoded(picture())).status_code == 200
        assert stalled.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_two_requests_in_one_packet_are_both_answered(server: Process) -> None:
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"
    received = _exchange(server, live + b"\r\n" + live + b"Connection: close\r\n\r\n")
    assert received.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.slow
def test_headers_that_never_end_are_given_up(server: Process) -> None:
    started = time.perf_counter()
    assert _exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", pause=0.1) == b""
    assert time.perf_counter() - started < 14


@pytest.mark.parametrize("binary", [False, True])
def test_an_independent_client_gets_the_answers_of_the_runtime(server: Process, toy_file: Path, binary: bool) -> None:
    import tritonclient.http as triton

    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 64)).astype(np.float32)
    expected = Runtime(toy_file, device="cpu", threads=1).run(images)
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("toy")
    metadata = client.get_model_metadata("toy")
    assert [tensor["name"] for tensor in metadata["outputs"]] == list(expected)
    given = triton.InferInput("images", list(images.shape), metadata["inputs"][0]["datatype"])
    given.set_data_from_numpy(images, binary_data=binary)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in expected]
    for outputs in (wanted, None):
        answer = client.infer("toy", [given], outputs=outputs, request_id="7")
        assert answer.get_response()["id"] == "7"
        for name, value in expected.items():
            found = answer.as_numpy(name)
            assert found.dtype == value.dtype
            np.testing.assert_array_equal(found, value)
    with pytest.raises(Exception, match="not served here"):
        client.infer("another", [given])
    client.close()


def test_wrong_settings_are_one_message(toy_file: Path, server: Process, cli: list[str], tmp_path: Path) -> None:
    taken = f"port={_address(server)[1]}"
    for keys, message in (
        ([f"weights={toy_file}", taken], f"{taken}: cannot be listened on (Address already in use)"),
        ([f"weights={toy_file}", "host=nowhere.invalid"], "host=nowhere.invalid"),
        ([f"weights={toy_file}", "port=70000"], "port=70000: must be a whole number >= 0 and <= 65535"),
        ([f"weights={toy_file}", "conf=0.001"], "was exported with conf=0.01"),
        ([f"weights={toy_file}", "device=tpu"], "device=tpu: must be auto, cpu, cuda or cuda:N"),
        ([f"weights={tmp_path / 'best.pt'}"], "takes an ONNX file; make one: aegl export weights="),
        ([f"weights={tmp_path / 'none.onnx'}"], "no such ONNX file"),
    ):
        done = subprocess.run([*cli, "serve", *keys], capture_output=True, text=True, cwd=tmp_path, timeout=30)
        assert done.returncode in (1, 2), done.stderr
        assert message in done.stderr and "Traceback" not in done.stderr, done.stderr
