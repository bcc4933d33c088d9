"""The problem record: what is written is read back, and a damaged line is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from scoring.problems import Problem, read_problems
from softmask.errors import InputError

CODE: dict[str, Any] = {
    "set": "s",
    "task_id": "s/0",
    "kind": "code",
    "request": "Add one.",
    "prompt": "def f(x):\n",
    "entry_point": "f",
    "canonical_solution": "    return x + 1",
    "base_input": [[1], [{"tuple": [2]}]],
    "base_expected": [2, {"float": "nan"}],
}
MATH: dict[str, Any] = {"set": "m", "task_id": "m/0", "kind": "math", "request": "1 + 1?", "answer": "2"}


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    problems = [
        Problem(**CODE),
        Problem(**MATH),
        Problem(**{**CODE, "task_id": "s/1", "atol": 1e-6, "structure": "add"}),
    ]
    assert read_problems(write(tmp_path / "a.jsonl", *(problem.record() for problem in problems))) == problems


def test_a_record_has_evalplus_s_fields_and_none_that_are_null() -> None:
    record = Problem(**CODE).record()
    assert {"prompt", "contract", "canonical_solution", "base_input", "plus_input", "atol", "entry_point"} <= set(
        record
    )
    assert (
        not {"check", "answer", "structure"} & set(record)
        and Problem(**CODE).reference == "def f(x):\n    return x + 1"
    )


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**CODE, "kind": "essay"}, r"line 2: kind: Input should be 'code' or 'math'"),
        ({**CODE, "request": ""}, "line 2: request"),
        ({**CODE, "entry_point": ""}, "line 2: a problem of kind 'code' has no entry_point"),
        (
            {**CODE, "base_input": [], "base_expected": []},
            "line 2: a problem of kind 'code' has either base_input or a check",
        ),
        ({**CODE, "check": "def check(c): pass"}, "line 2: a problem of kind 'code' has either base_input or a check"),
        ({**CODE, "base_expected": [1]}, "line 2: 1 base_expected for 2 base_input"),
        ({**CODE, "plus_expected": [1]}, "line 2: 1 plus_expected for 0 plus_input"),
        ({**CODE, "hint": "x"}, "line 2: hint: Extra inputs"),
        ({**MATH, "answer": ""}, "line 2: a problem of kind 'math' has no answer"),
        ({**MATH, "task_id": "m/9"}, r"line 2: task_id 'm/9' is there twice"),
        ([1], "line 2"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, record: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_problems(write(tmp_path / "a.jsonl", {**MATH, "task_id": "m/9"}, record))


def test_a_file_that_is_missing_empty_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl: the file is missing"):
        read_problems(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=r"a\.jsonl: the file has no problem"):
        read_problems(write(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match=r"a\.jsonl, line 1"):
        read_problems(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="can't be read"):
        read_problems(tmp_path)


@pytest.mark.parametrize(
    ("prompt", "signature"),
    [
        ('def f(x):\n    """Return x."""\n', "def f(x):\n"),
        ('import math\n\n\ndef g():\n    """Help."""\n    return 1\n\n\ndef f(x):\n    """Two\n    lines."""\n',
         'import math\n\n\ndef g():\n    """Help."""\n    return 1\n\n\ndef f(x):\n'),
        ("def f(x):\n", "def f(x):\n"),
        ('def f(x): """Return x."""\n', 'def f(x): """Return x."""\n'),
        ('"""\nWrite a function.\n"""\n', '"""\nWrite a function.\n"""\n'),
        ("def f(x)", "def f(x)"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_signature_is_the_prompt_without_the_function_s_docstring(prompt: str, signature: str) -> None:
    problem = Problem(
        set="s", task_id="s/1", kind="code", request="Do it.", prompt=prompt, entry_point="f", base_input=[[1]]
    )
    assert problem.signature == signature
    assert problem.texts() == {"request": "Do it.", "prompt": prompt, "signature": signature}
