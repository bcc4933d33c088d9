"""What the system refuses, as each library passes it on; on a real full file system and a real read-only one."""

import subprocess
import sys
from pathlib import Path

import pytest

from softmask.refused import refusal

ROOT = Path(__file__).parents[2]
WAYS = {
    "open": "Path('small/a').write_bytes(b'0' * 2**20)",
    "copytree": "shutil.copytree('big', 'small/big')",
    "pyarrow": "pq.write_table(pa.table({'a': np.random.default_rng(0).random(10**5)}), 'small/a.parquet')",
    "safetensors": "save_file({'a': np.zeros(10**6)}, 'small/a.safetensors')",
    "torch": "torch.save(torch.zeros(10**6), 'small/a.pt')",
    "numpy": "np.save('small/a.npy', np.zeros(10**6))",
}
SOURCE = """
import shutil
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, torch
from safetensors.numpy import save_file
from softmask.refused import refusal
for name, way in {ways!r}.items():
    try:
        exec(way)
    except Exception as error:
        told = refusal(error, Path("small"))  # torch's names none
        print(name, type(told).__name__, told, sep="|")
"""
MOUNTS = {
    "full": "mount -t tmpfs -o size=16k tmpfs small",
    "read-only": "mount --bind small small; mount -o remount,bind,ro small",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "kind", "text"), [("full", "Unavailable", "disk is full"), ("read-only", "InputError", "Read-only")]
)
def test_every_library_that_writes_is_understood(how: str, kind: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "big").mkdir()
    (tmp_path / "big/file").write_bytes(b"0" * 2**20)
    script = f'{MOUNTS[how]}; PYTHONPATH={ROOT} exec {sys.executable} -c "$0"'
    command = ["unshare", "-Urm", "bash", "-c", script, SOURCE.format(ways=WAYS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [line.split("|") for line in done.stdout.splitlines()]
    assert [name for name, *_ in told] == list(WAYS), done.stdout + done.stderr
    for name, found, message in told:
        assert found == kind and text in message and "small" in message, (name, message)


def test_other_errors_are_left_alone() -> None:
    for error in (ValueError("a bug"), FileNotFoundError(2, "No such file", "x"), ConnectionError("refused")):
        assert refusal(error) is None
