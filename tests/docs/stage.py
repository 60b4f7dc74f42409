"""Where the blocks of a page are run: in a folder with small data, in this process as far as that is possible."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from click.testing import CliRunner

from .pages import Step
from .rehearsal import INTERRUPTION, command_of_torchrun, rewritten, shortened, shortened_program

_SHIMS = {
    # What Slurm would start is written down, a word a line, and run afterwards.
    "srun": '#!/bin/sh\nfor word in "$@"; do echo "$word"; done > started.txt\n',
    "scontrol": "#!/bin/sh\necho node0\n",
}
_SLURM = {"SLURM_NNODES": "8", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node[0-7]"}
_SECONDS = 120
"""After which a program of a page is taken to hang."""
_TRACED: dict[str, bytes] = {}
"""ONNX graphs of this process by what they were made of."""


class Failed(Exception):
    """A step that did not end as the page says, with what it said."""


class NotInstalled(Exception):
    """A program that a step calls and this machine lacks."""


class Stage:
    """Runs steps, one after another, in a folder.

    Args:
        folder: with what the page takes for granted; the steps' working directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: subprocess.Popen[str] | None = None
        self._address: str | None = None
        self._modules = set(sys.modules)

    def run(self, step: Step, *, interrupted: bool = False) -> None:
        """Run one.

        Args:
            step: the step.
            interrupted: end it, a training, after its first step.

        Raises:
            Failed: if it does not end with exit code 0, or that of SIGTERM where it is interrupted.
            NotInstalled: if it cannot be begun.
        """
        if step.kind == "python":
            self._python(shortened_program(rewritten(step.text, self._address)))
        elif step.kind == "script":
            self._script(step.text)
        elif step.kind == "command":
            self._command(rewritten(step.text, self._address), interrupted)
        else:
            raise Failed(f"nobody knows how to run {step.kind}")

    def close(self) -> None:
        """Stop the server, forget modules of the folder."""
        self._stop_server()
        for name in set(sys.modules) - self._modules:
            if str(self._folder) in (getattr(sys.modules[name], "__file__", None) or ""):
                del sys.modules[name]

    def _command(self, command: str, interrupted: bool) -> None:
        words = shlex.split(command)
        if words[0] == "torchrun":
            words = ["aegl", *_started_by_torchrun(words[1:])]
        if words[0] != "aegl":
            self._shell(["bash", "-c", command])
        elif words[1] == "serve":
            self._start_server(shortened(words[1:]))
        else:
            self.aegl(*shortened(words[1:]), interrupted=interrupted)

    def aegl(self, *words: object, interrupted: bool = False) -> None:
        """Run a command of aegl in this process."""
        from aegl_cli.main import cli

        if interrupted:
            (self._folder / "interruption.py").write_text(INTERRUPTION, encoding="utf-8")
            words = (*words, "callbacks=interruption.py")
        with _small_machine(), contextlib.chdir(self._folder):
            result = CliRunner().invoke(cli, [str(word) for word in words])
        if result.exit_code != (128 + signal.SIGTERM if interrupted else 0):
            trace = ""
            if result.exc_info and not isinstance(result.exception, SystemExit):
                trace = "".join(traceback.format_exception(*result.exc_info))
            raise Failed(f"$ aegl {' '.join(map(str, words))}\n{result.output}{trace}exit code {result.exit_code}")

    def _shell(self, words: list[str], **environment: str) -> None:
        path = os.pathsep.join([str(self._folder), str(Path(sys.executable).parent), os.environ["PATH"]])
        keys = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": "", **environment}
        program = shlex.split(words[-1])[0]
        if shutil.which(program, path=path) is None:
            raise NotInstalled(program)
        both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        try:
            subprocess.run(words, cwd=self._folder, env=keys, timeout=_SECONDS, check=True, **both)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = (error.stdout or b"").decode(errors="replace")
            raise Failed(f"$ {words[-1]}\n{said}{error}") from None

    def _script(self, text: str) -> None:
        for name, shim in {**_SHIMS, "job.sh": text}.items():
            file = self._folder / name
            file.write_text(shim, encoding="utf-8")
            file.chmod(0o755)
        started = self._folder / "started.txt"
        self._shell([str(self._folder / "job.sh")], **_SLURM)
        self._command(rewritten(shlex.join(started.read_text(encoding="utf-8").splitlines())), interrupted=False)
        started.unlink()

    def _python(self, text: str) -> None:
        said = io.StringIO()
        with (
            _small_machine(),
            mock.patch.object(sys, "path", [str(self._folder), *sys.path]),
            contextlib.chdir(self._folder),
            contextlib.redirect_stdout(said),
        ):
            try:
                exec(compile(text, "<block>", "exec"), {"__name__": "__main__"})
            except (Exception, SystemExit) as error:
                raise Failed(f"{text}\n{said.getvalue()}{traceback.format_exc()}") from error

    def _start_server(self, words: list[str]) -> None:
        self._stop_server()
        command = [sys.executable, "-m", "aegl_cli", *words]
        self._server = subprocess.Popen(
            command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        said = []
        assert self._server.stderr is not None
        for line in self._server.stderr:
            said.append(line)
            if found := re.search(r"http://[\w.]+:(\d+)", line):
                self._address = f"127.0.0.1:{found[1]}"
                break
        else:
            code, self._server = self._server.wait(_SECONDS), None
            raise Failed(f"$ aegl {shlex.join(words)}\n{''.join(said)}exit code {code}")
        threading.Thread(target=self._server.stderr.read, daemon=True).start()

    def _stop_server(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        server.terminate()
        try:
            code = server.wait(_SECONDS)
        finally:
            server.kill()
        if code:
            raise Failed(f"aegl serve: exit code {code} after SIGTERM")


@contextlib.contextmanager
def _small_machine() -> Iterator[None]:
    """No GPU; and a model that several pages export is traced once, which is what takes the time of an export."""
    import onnx
    import torch

    from aegl.export import onnx_graph

    trace = onnx_graph._trace

    def traced(model: Any, meta: Any, *rest: Any) -> Any:
        content = hashlib.sha256(repr((model, meta, rest)).encode())
        for name, tensor in model.state_dict().items():
            content.update(name.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        key = content.hexdigest()
        if key not in _TRACED:
            _TRACED[key] = trace(model, meta, *rest).model_proto.SerializeToString()
        return SimpleNamespace(model_proto=onnx.load_from_string(_TRACED[key]))

    with (
        mock.patch("torch.cuda.is_available", return_value=False),
        mock.patch.object(onnx_graph, "_trace", traced),
    ):
        yield


def _started_by_torchrun(words: list[str]) -> list[str]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return command_of_torchrun(words)
    except SystemExit:
        raise Failed(f"$ torchrun {shlex.join(words)}\n{said.getvalue()}") from None


def copied(source: Path, target: Path) -> None:
    """A file or a folder, below folders that may not exist yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A stage that is closed afterwards."""
    made = Stage(folder)
    try:
        yield made
    finally:
        made.close()
