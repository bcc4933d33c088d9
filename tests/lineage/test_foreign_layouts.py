"""Layouts of public projects, each of which once made a clean project look wrong, or an answer end early.

None of their files is here: their shapes are made anew, in copies of the simulated project.
"""

from pathlib import Path

import pytest

from lineage.model import Fault
from lineage.repository import Repository
from lineage.verify import verify
from tests.lineage.simulated import Project

Found = set[tuple[Fault, str]]


@pytest.fixture
def project(simulated: Project, tmp_path: Path) -> Project:
    """A clean project to change."""
    return simulated.copied(tmp_path / "project")


def found(project: Project, revision: str | None = None) -> Found:
    """Fault and path of all that verification finds."""
    return {(finding.fault, finding.path) for finding in verify(Repository(project.root), revision).findings}


# A dvc.yaml without stages


@pytest.mark.parametrize("text", ["", "# Nothing yet.\n", "stages: {}\n", "artifacts:\n  model:\n    path: a.txt\n"])
def test_a_dvc_yaml_without_stages_anywhere_is_no_fault(project: Project, text: str) -> None:
    project.write("datasets/more/dvc.yaml", text.encode())
    project.commit("more")
    assert found(project) == found(project, "HEAD") == set()


def test_a_dvc_yaml_that_cannot_be_read_hides_nothing_of_the_others(project: Project) -> None:
    project.write("datasets/dvc.yaml", b"stages:\n  made: {cmd: echo '${nothing}'}\n")
    project.replace("dvc.yaml", "cmd: report", "cmd: report --more")
    project.commit("more")
    assert found(project, "HEAD") == {(Fault.UNCHECKED, "datasets/dvc.yaml"), (Fault.COMMAND, "dvc.yaml")}
