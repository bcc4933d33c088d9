"""The runner, the checkpoint store, manifests and hashes: what every stage is held to."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from dvc.repo import Repo

from artifacts.files import dump_json, read_json, write_json
from artifacts.hashing import file_md5, path_hash
from runner.stage import Context, run_command
from runner.store import Checkpoints
from softmask.errors import InputError
from tests.stages import tiny_stage


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny stage's folder, as the current one."""
    monkeypatch.chdir(tmp_path)
    return tiny_stage.make(tmp_path)


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[Any] | None" = None) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def unfinished(folder: Path) -> list[Path]:
    return sorted((folder / ".checkpoints").glob("tiny-*/units/*.json"))


# Inputs that can't be used


@pytest.mark.parametrize(("path", "advised"), [("text", True), ("data/texts", False), ("elsewhere", False)])
def test_what_an_earlier_stage_made_and_is_damaged_is_to_be_made_again(folder: Path, path: str, advised: bool) -> None:
    def refuse(context: Context[Any]) -> None:
        raise InputError("damaged", where=f"{path}/a.txt")

    stage = replace(tiny_stage.stage(folder), run=refuse, inputs={"text": "text", "texts": "data/texts"})
    (folder / "data/texts").mkdir(parents=True)
    with pytest.raises(InputError, match=r"damaged\. Make it again: dvc repro -f$" if advised else "damaged$"):
        stage.execute({})


# Manifests


def test_two_runs_leave_the_same_manifest_and_times_apart(folder: Path) -> None:
    manifests = []
    for _ in range(2):
        tiny_stage.stage(folder).execute({})
        manifests.append((folder / "out" / "manifest.json").read_bytes())
        time.sleep(0.01)
    assert manifests[0] == manifests[1]
    run = read_json(folder / "out" / "run.json")
    assert (
        set(run) == {"stage", "started", "seconds", "host", "machine", "runner", "commit"} and 0 <= run["seconds"] < 30
    )
    assert not {run["host"], run["started"]} & set(manifests[0].decode().split('"'))


def test_a_manifest_says_what_was_read_made_and_counted(folder: Path) -> None:
    tiny_stage.stage(folder).execute({})
    manifest = read_json(folder / "out" / "manifest.json")
    assert manifest["stage"] == "tiny" and manifest["params"] == {"start": 10} and manifest["counts"] == {"units": 3}
    assert manifest["inputs"] == {"text": path_hash(folder / "text")}
    assert manifest["outputs"] == {"out/values.json": path_hash(folder / "out" / "values.json")}
    assert manifest["code"] == {"stages/tiny_code.py": file_md5(folder / "stages" / "tiny_code.py")}
    assert manifest["environment"]["python"] == sys.version.split()[0]
    assert read_json(folder / "out" / "values.json") == [10, 11, 12]


def test_a_manifest_is_canonical_json(folder: Path) -> None:
    tiny_stage.stage(folder).execute({})
    text = (folder / "out" / "manifest.json").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert str(folder) not in text


# Unfinished work


def test_finished_work_leaves_no_checkpoint_and_is_computed_anew(folder: Path) -> None:
    tiny_stage.stage(folder).execute({})
    assert not unfinished(folder) and tiny_stage.log(folder) == "012"
    tiny_stage.stage(folder).execute({})
    assert tiny_stage.log(folder) == "012012"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_stage_keeps_its_units_and_goes_on_to_the_same_bytes(
    folder: Path, sent: signal.Signals, code: int
) -> None:
    tiny_stage.stage(folder).execute({})
    undisturbed = {path.name: path.read_bytes() for path in (folder / "out").iterdir() if path.name != "run.json"}
    for path in (folder / "out").iterdir():
        path.unlink()

    (folder / "hold").touch()
    process = tiny_stage.start(folder)
    wait_for(lambda: tiny_stage.log(folder) == "01201", process)
    process.send_signal(sent)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code and not out and "Traceback" not in err
    if sent is signal.SIGINT:
        assert err == "interrupted: finished work is kept, run again to go on\n"
    assert [path.name for path in unfinished(folder)] == ["0.json"] and not list((folder / "out").iterdir())

    (folder / "hold").unlink()
    tiny_stage.stage(folder).execute({})
    assert tiny_stage.log(folder) == "0120112", "unit 0 is not computed again"
    assert {p.name: p.read_bytes() for p in (folder / "out").iterdir() if p.name != "run.json"} == undisturbed
    assert not unfinished(folder)


@pytest.mark.parametrize("command", ["exec python tiny.py", "python tiny.py; exit $?"], ids=["alone", "in a shell"])
@pytest.mark.parametrize("by_dvc", [True, False])
def test_a_stage_that_dvc_started_ends_with_it_and_another_does_not(folder: Path, by_dvc: bool, command: str) -> None:
    (folder / "hold").touch()
    code = f"""
import os, psutil, subprocess
more = {{"DVC_STAGE": "tiny"}} if {by_dvc} else {{}}
shell = psutil.Process(subprocess.Popen({command!r}, shell=True, env={{**os.environ, **more}}).pid)
while "python" not in shell.name() and not shell.children():
    pass
print((shell.children() or [shell])[0].pid, flush=True)
input()
"""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(tiny_stage.ROOT), "PATH": path}
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None and parent.stdin is not None
    stage = psutil.Process(int(parent.stdout.readline()))
    wait_for(lambda: tiny_stage.log(folder) == "01", parent)
    parent.kill()
    parent.wait()
    if by_dvc:
        psutil.wait_procs([stage], timeout=10)
        assert not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE
    else:
        (folder / "hold").unlink()
        wait_for(lambda: (folder / "out" / "manifest.json").exists())
    parent.stdout.close()
    parent.stdin.close()


def interrupt(folder: Path) -> None:
    """Leave a checkpoint with unit 0 behind."""
    (folder / "hold").touch()
    process = tiny_stage.start(folder)
    wait_for(lambda: tiny_stage.log(folder) == "01", process)
    process.kill()
    process.communicate()
    (folder / "hold").unlink()


@pytest.mark.parametrize(
    ("file", "text"),
    [("params.yaml", "start: 20\n"), ("text/deep/b.txt", "c"), ("stages/tiny_code.py", "# other code\n")],
    ids=["parameters", "inputs", "code"],
)
def test_unfinished_work_of_other_parameters_inputs_or_code_is_not_picked_up(
    folder: Path, file: str, text: str
) -> None:
    interrupt(folder)
    (folder / file).write_text(text, encoding="utf-8")
    tiny_stage.stage(folder).execute({})
    assert tiny_stage.log(folder) == "01012"
    assert [path.name for path in unfinished(folder)] == ["0.json"], "the other run's work is left to it"


EDITS = [
    ("params.yaml", "start: 20\n", "params.yaml: start"),
    ("text/deep/b.txt", "c", "text"),
    ("stages/tiny_code.py", "# other code\n", "stages/tiny_code.py"),
    ("dvc.yaml", "stages: {tiny: {deps: [stages/tiny_code.py, stages/new.py, text]}}\n", "stages/new.py"),
]


@pytest.mark.parametrize(("file", "text", "name"), EDITS, ids=["parameters", "inputs", "code", "new code"])
def test_what_is_edited_while_a_stage_runs_is_not_recorded_as_what_it_ran_with(
    folder: Path, file: str, text: str, name: str
) -> None:
    (folder / "stages/new.py").touch()
    tiny_stage.stage(folder).execute({})
    undisturbed = (folder / "out/manifest.json").read_bytes()
    (folder / "out/manifest.json").unlink()
    (folder / "hold").touch()
    process = tiny_stage.start(folder)
    wait_for(lambda: tiny_stage.log(folder) == "01201", process)
    before, times = (folder / file).read_text(encoding="utf-8"), (folder / file).stat()
    (folder / file).write_text(text, encoding="utf-8")
    os.utime(folder / file, ns=(times.st_atime_ns, times.st_mtime_ns))
    (folder / "hold").unlink()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2 and err.count("\n") == 1
    assert err.startswith(f"error: {name}: it was changed while the stage ran")
    assert not (folder / "out/manifest.json").exists()

    (folder / file).write_text(before, encoding="utf-8")
    tiny_stage.stage(folder).execute({})
    assert tiny_stage.log(folder) == "012012", "the work was kept"
    assert (folder / "out/manifest.json").read_bytes() == undisturbed


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("dvc.yaml", "stages: {tiny: [\n", "dvc.yaml, line 2, column 1: not valid YAML"),
        ("dvc.yaml", "stages: {other: {cmd: x}}\n", "dvc.yaml: stages.tiny: missing"),
        ("dvc.yaml", "", "dvc.yaml: the file is empty"),
        ("stages/tiny_code.py", None, "stages/tiny_code.py: can't be read (No such file or directory)"),
    ],
)
def test_another_commit_that_is_checked_out_while_a_stage_runs_is_one_line(
    folder: Path, file: str, text: str | None, said: str
) -> None:
    (folder / "hold").touch()
    process = tiny_stage.start(folder)
    wait_for(lambda: tiny_stage.log(folder) == "01", process)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text, encoding="utf-8")
    (folder / "hold").unlink()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2 and err.count("\n") == 1 and err.startswith(f"error: {said}")
    assert len(unfinished(folder)) == 3 and not (folder / "out/manifest.json").exists()


def test_what_is_edited_while_a_stages_outputs_are_hashed_is_not_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(path: Path) -> dict[str, Any]:
        if path == Path("out/values.json"):
            Path("params.yaml").write_text("start: 20\n")
        return path_hash(path)

    monkeypatch.setattr("runner.stage.path_hash", hashed)
    with pytest.raises(InputError, match=r"params\.yaml: start: it was changed while the stage ran"):
        tiny_stage.stage(folder).execute({})
    assert len(unfinished(folder)) == 3 and not Path("out/manifest.json").exists()


def test_what_is_edited_in_a_collection_after_it_was_read_is_not_recorded(folder: Path) -> None:
    tiny = tiny_stage.stage(folder)

    def run(context: Context[Any]) -> None:
        context.read["text/a.txt"] = {"md5": file_md5(Path("text/a.txt"))}
        tiny.run(context)
        Path("text/deep/b.txt").write_text("not read")
        Path("text/a.txt").write_text("b" if edits else "a")

    stage = replace(tiny, run=run, collections=("text",))
    edits = False
    stage.execute({})
    assert set(read_json(Path("out/manifest.json"))["inputs"]) == {"text/a.txt"}
    edits = True
    with pytest.raises(InputError, match=r"text/a\.txt: it was changed while the stage ran"):
        stage.execute({})


def test_what_a_stage_does_not_read_may_be_edited_while_it_runs(folder: Path) -> None:
    (folder / "params.yaml").write_text("start: 10\nother: 1\n")
    (folder / "hold").touch()
    process = tiny_stage.start(folder)
    wait_for(lambda: tiny_stage.log(folder) == "01", process)
    (folder / "params.yaml").write_text("other: 2  # a comment\nstart: 10\n")
    (folder / "hold").unlink()
    assert process.communicate(timeout=20) == ("", "")
    assert read_json(folder / "out/manifest.json")["params"] == {"start": 10}


def test_code_that_is_edited_while_a_stage_is_being_imported_is_not_recorded(folder: Path) -> None:
    (folder / "importing").touch()
    process = tiny_stage.start(folder)
    wait_for((folder / "begun").exists, process)
    (folder / "stages/tiny_code.py").write_text("# other code\n")
    (folder / "importing").unlink()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2 and err.startswith("error: stages/tiny_code.py: it was changed while the stage ran")
    assert tiny_stage.log(folder) == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"key": "k", "val',
        b'{"key": "k"}',
        b"[1]",
        b"null",
        b"\xff\xfe",
        b'{"key": "other", "value": 1}',
    ],
    ids=["empty", "cut", "no value", "a list", "null", "no text", "foreign"],
)
def test_a_torn_or_foreign_unit_is_computed_again(tmp_path: Path, content: bytes) -> None:
    checkpoints = Checkpoints(tmp_path, "k")
    assert checkpoints.unit("a", lambda: {"n": 1}) == {"n": 1}
    (tmp_path / "units" / "a.json").write_bytes(content)
    assert checkpoints.unit("a", lambda: {"n": 2}) == {"n": 2}
    assert checkpoints.unit("a", lambda: {"n": 3}) == {"n": 2}


def test_a_unit_is_the_same_whether_it_was_computed_or_read(tmp_path: Path) -> None:
    value = {"tuple": (1, 2), "float": 0.1 + 0.2, "by seed": {3: "x"}, "ü": "ü"}
    computed = Checkpoints(tmp_path, "k").unit("a", lambda: value)
    assert computed == Checkpoints(tmp_path, "k").unit("a", lambda: None)
    assert computed == {"tuple": [1, 2], "float": 0.1 + 0.2, "by seed": {"3": "x"}, "ü": "ü"}


def test_a_unit_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Any:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        Checkpoints(tmp_path, "k").unit("a", fail)
    assert not list(tmp_path.rglob("*.json"))


# Files


def test_a_killed_write_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "value.json"
    source = (
        "import sys; from pathlib import Path; from artifacts.files import write_json\n"
        "for n in range(10**6): write_json(Path(sys.argv[1]), [n] * 300_000)\n"
    )
    for delay in (0.0, 0.013, 0.029):
        process = subprocess.Popen(
            [sys.executable, "-c", source, str(file)], cwd=tiny_stage.ROOT, stderr=subprocess.PIPE, text=True
        )
        wait_for(file.exists, process)
        time.sleep(delay)
        process.kill()
        process.communicate()
        values = read_json(file)
        assert len(values) == 300_000 and len(set(values)) == 1
        file.unlink()


def test_a_write_that_finds_no_room_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "value.json"
    write_json(file, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"value\.json: can't be written \(File too large\)"):
            write_json(file, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_json(file) == "old" and list(tmp_path.iterdir()) == [file]


def test_a_value_that_json_lacks_is_never_written(tmp_path: Path) -> None:
    for value, named in ((math.nan, "value is nan"), ({"a": [1.0, {"b": -math.inf}]}, r"value\.a\[1\]\.b is -inf")):
        with pytest.raises(InputError, match=rf"value\.json: {named}; expected finite numbers"):
            write_json(tmp_path / "value.json", value)
        with pytest.raises(InputError, match=rf"units/one\.json: value\.{named}; expected"):
            Checkpoints(tmp_path, "key").unit("one", lambda value=value: value)
    assert not list(tmp_path.iterdir())
    assert dump_json({"b": 1, "a": "ü"}) == '{\n  "a": "ü",\n  "b": 1\n}\n'


# Hashes


def test_hashes_are_those_that_dvc_writes_into_dvc_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "folder/b.txt": b"second\r\n",
        "folder/a-b/deep.bin": bytes(range(256)),
        "folder/a/run.txt": b"",
        "folder/a/b/c.json": b"{}\n",
        "folder/a.txt": b"sorts between the folders",
        "folder/\u00fc \u6587.txt": b"no ASCII",
        "folder/run.json": b"times: in no hash",
        "folder/a/run.json": b"times: in no hash",
        "single.txt": b"one file\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".dvcignore").write_text("run.json\n", encoding="utf-8")
    with Repo.init(no_scm=True) as repo:
        for name in ("folder", "single.txt"):
            (added,) = repo.add(name)
            out = added.outs[0]
            assert path_hash(Path(name)) == {"md5": out.hash_info.value, "size": out.meta.size}


def test_a_hash_changes_with_content_and_name_and_not_with_times(tmp_path: Path) -> None:
    (tmp_path / "f" / "x").mkdir(parents=True)
    (tmp_path / "f" / "x" / "a").write_text("1", encoding="utf-8")
    first = path_hash(tmp_path / "f")
    (tmp_path / "f" / "run.json").write_text("{}", encoding="utf-8")
    (tmp_path / "f" / "x" / "a").touch()
    assert path_hash(tmp_path / "f") == first
    (tmp_path / "f" / "x" / "a").rename(tmp_path / "f" / "x" / "b")
    renamed = path_hash(tmp_path / "f")
    (tmp_path / "f" / "x" / "b").write_text("2", encoding="utf-8")
    assert len({str(h) for h in (first, renamed, path_hash(tmp_path / "f"))}) == 3


# The command line's end


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("it is 3", where="x", expected="4", todo="Mend it"), 2, "error: x: it is 3; expected 4. Mend it\n"),
        (KeyboardInterrupt(), 130, "interrupted: finished work is kept, run again to go on\n"),
    ],
)
def test_a_command_ends_with_one_plain_message(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as exit_:
        run_command(command)
    assert exit_.value.code == code and capsys.readouterr().err == text


def test_a_bug_keeps_its_traceback() -> None:
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(command)
