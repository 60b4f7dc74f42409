"""Shared set-up: one thread per test process, and a cache folder of its own for every test session."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("aegl", deadline=None)
settings.load_profile("aegl")


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["AEGL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test run that all its processes have in common, for what takes long to make."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def oracles() -> Path:
    """Folder of the golden vectors: `AEGL_ORACLES`, else the copy kept with the tests."""
    return Path(os.environ.get("AEGL_ORACLES", Path(__file__).parent / "fixtures" / "oracles"))
