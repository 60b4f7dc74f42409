"""What gets installed: only `aegl` and `aegl_cli` on top, every package listed, the YAML files included."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[1]


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_listed() -> None:
    listed = set(_setup_cfg()["options"]["packages"].split())
    found = set(find_packages(str(ROOT), include=["aegl*", "aegl_cli*"]))
    assert listed == found | {"aegl.cfg", "aegl.export"}


def test_symlinks_point_to_the_top_level_folders() -> None:
    for name in ("cfg", "export"):
        assert (ROOT / "aegl" / name).resolve() == ROOT / name


def test_dependencies_have_no_unexplained_upper_pin() -> None:
    for line in _setup_cfg()["options"]["install_requires"].splitlines():
        assert "<" not in line.split(";")[0] and "==" not in line.split(";")[0], line


@pytest.mark.slow
def test_wheel_puts_only_two_names_on_top(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    tops = {n.split("/")[0] for n in names if ".dist-info/" not in n}
    assert tops == {"aegl", "aegl_cli"}
    assert "aegl/cfg/default.yaml" in names
    assert any(n.startswith("aegl/cfg/method/") for n in names)
    assert "aegl/py.typed" in names
