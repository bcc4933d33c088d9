"""A full disk and a read-only folder: real stages on real small file systems say so, and go on to the same bytes."""

import subprocess
from pathlib import Path

import pytest

from tests.pipeline.clones import Clone, attempt

pytestmark = pytest.mark.slow

SMALL = """
set -eu
mkdir -p {store}
mount -t tmpfs tmpfs {store}
mount -t tmpfs -o size={size} tmpfs {folder}
set +e
{command} 2> {log}
echo "exit code $?" >> {log}
set -e
mount -o remount,size=64m {folder}
{command} >&2
cp -r {folder} {made}
"""
READ_ONLY = """
set -u
mkdir -p {folder}
mount --bind {folder} {folder}
mount -o remount,bind,ro {folder}
{command} 2> {log}
echo "exit code $?" >> {log}
"""


def namespaced(script: str, root: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script that may mount file systems, which nobody else sees."""
    return attempt(["unshare", "-Urm", "bash", "-c", script], root)


def said(log: Path) -> tuple[str, str]:
    """The one line of an error in a log, and the exit code."""
    text = log.read_text(encoding="utf-8")
    assert "Traceback" not in text, text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    return line, text.split()[-1]


@pytest.mark.parametrize(
    ("stage", "folder", "size"),
    [
        ("corpus", "data/corpus", "16k"),  # a library's Parquet
        ("tokens", "data/tokens", "8k"),  # arrays, written by us
        ("judge", "models/judge", "16k"),  # a library's safetensors
        ("generate_base", "data/samples/base", "4k"),  # lines at the end of all work
        ("generate_base", ".checkpoints", "8k"),  # units
    ],
)
def test_a_stage_without_room_says_where_and_goes_on_when_there_is_some(
    copy: Clone, tmp_path: Path, stage: str, folder: str, size: str
) -> None:
    log, made = tmp_path / "log", tmp_path / "made"
    command = " ".join(copy.command(stage))
    store = ".checkpoints" if folder != ".checkpoints" else "other"
    done = namespaced(
        SMALL.format(command=command, folder=folder, size=size, store=store, log=log, made=made), copy.root
    )
    assert done.returncode == 0, done.stderr
    line, code = said(log)
    assert code == "75" and line.startswith(f"error: {folder}") and "the disk is full" in line and "Make room" in line
    if folder != ".checkpoints":
        for path, content in copy.content(stage).items():
            assert (made / Path(path).relative_to(folder)).read_bytes() == content, path


@pytest.mark.parametrize(("stage", "folder"), [("corpus", "data/corpus"), ("tokens", ".checkpoints")])
def test_a_read_only_folder_is_a_persons_to_mend(copy: Clone, tmp_path: Path, stage: str, folder: str) -> None:
    log = tmp_path / "log"
    done = namespaced(READ_ONLY.format(command=" ".join(copy.command(stage)), folder=folder, log=log), copy.root)
    line, code = said(log)
    assert code == "2" and folder in line and "Read-only file system" in line, (line, done.stderr)
