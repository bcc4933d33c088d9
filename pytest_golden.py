"""The pytest option `--golden-dir DIR` and its fixture: the reference numbers that the golden tests compare with.

A plugin of its own, installed with the project, and not part of tests/conftest.py: pytest takes the DIR of
`pytest -m golden --golden-dir DIR` for the place of the tests until it knows the option, and then finds no conftest.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        metavar="DIR",
        type=Path,
        default=ROOT / "tests" / "golden",
        help="folder of reference numbers for the golden tests (default: tests/golden)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Where a DIR outside of the project kept pytest from finding pyproject.toml, import tests as it says.

    Some installed package brings a `tests` of its own, which pytest keeps from hiding ours only below its root.
    """
    if "--golden-dir" in args and early_config.rootpath != ROOT:
        early_config.known_args_namespace.importmode = "importlib"
        args.insert(0, "--import-mode=importlib")
        ours = ModuleSpec("tests", None, is_package=True)
        ours.submodule_search_locations = [str(ROOT / "tests")]
        sys.modules["tests"] = module_from_spec(ours)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden: parity with the reference numbers in --golden-dir")


@pytest.fixture(scope="session")
def golden_dir(pytestconfig: pytest.Config) -> Path:
    """The folder of reference numbers; a path given on the command line counts from where pytest was started."""
    folder: Path = (pytestconfig.invocation_params.dir / pytestconfig.getoption("--golden-dir")).resolve()
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden-dir: {folder} is not a folder")
    return folder
