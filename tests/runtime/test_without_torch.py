"""The runtime in a Python in which nothing but NumPy, Pillow and ONNX Runtime can be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from aegl.engine.predictor import predict

BLOCKED = ("torch", "torchvision", "timm", "pycocotools", "lvis", "onnx", "onnxscript", "pydantic", "click", "yaml")
BLOCKER = f"""
import importlib.abc, json, sys
BLOCKED = {{*{BLOCKED!r}, "msgspec", "rich"}}
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED | HIDDEN:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
HIDDEN = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Blocker())
"""
PREDICT = """
from aegl.runtime import Runtime
runtime = Runtime(sys.argv[2], device="cpu", threads=1)
print(json.dumps([runtime.predict([path])[0].to_dict() for path in sys.argv[3:]]))
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
"""


def run(code: str, *arguments: str, hidden: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKER + code, json.dumps(hidden), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_blocker_blocks() -> None:
    for name in BLOCKED:
        assert f"No module named '{name}'" in run(f"import {name}").stderr


def test_prediction_needs_numpy_pillow_and_onnx_runtime_only(case: Any, pictures: dict[str, Path]) -> None:
    paths = list(pictures.values())
    done = run(PREDICT, str(case.path), *map(str, paths))
    assert (done.returncode, done.stderr) == (0, "")
    expected = [prediction.to_dict() for prediction in predict(case.onnx, paths, conf=0.3)]
    assert [
        {"path": str(path), **found} for path, found in zip(paths, json.loads(done.stdout), strict=True)
    ] == expected


def test_importing_aegl_brings_no_torch() -> None:
    assert run("import aegl, aegl.runtime, aegl.runtime.session").returncode == 0


def test_without_onnx_runtime_it_says_what_to_install() -> None:
    done = run("import aegl.runtime", hidden=("onnxruntime",))
    assert "which is not installed: pip install onnxruntime-gpu" in done.stderr
