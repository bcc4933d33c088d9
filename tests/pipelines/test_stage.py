"""How a stage's run ends: by exit code, and in the stage's own words."""

import subprocess

import pytest

from pipelines.follow import follow
from pipelines.stage import ended


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "seq 50; echo error: a: 1 is wrong; echo '  b: 2 is wrong' >&2; exit 2",
            "error: a: 1 is wrong\n  b: 2 is wrong",
        ),
        ("echo error: an earlier one; echo; echo error: the last; exit 2", "error: the last"),
        ("seq 50; exit 2", "48\n49\n50"),
        ("exit 2", "it said nothing"),
    ],
)
def test_a_stage_that_fails_is_told_of_in_its_own_words(script: str, words: str) -> None:
    command = ["sh", "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    state = ended(*follow(process, print))
    assert state.is_failed() and state.message == f"{words} (exit code 2)"
