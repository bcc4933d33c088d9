"""The instructions stage: chats of each source, what is left out and counted, and mistakes named by file and record."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.files import read_lines, write_lines
from artifacts.hashing import path_hash
from runner.section import validate
from runner.stage import Context
from runner.store import Checkpoints
from scoring.problems import Problem
from softmask.errors import InputError
from stages.instructions import Params, run
from stages.params.code.instructions import InstructionSourceParams, InstructionsParams
from stages.sources import records

KEPT: dict[str, Any] = {
    "seed": 1,
    "validation_examples": 2,
    "max_examples": None,
    "drop_tool_calls": True,
    "tool_call_markers": ["<tool_call>"],
    "max_length": 200,
    "min_response_tokens": 3,
}
ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
FIELDS = {"messages": "messages", "roles": ROLES}
NONE: dict[str, Any] = {"micro": None, "hub": [], "files": None}
MICRO = {
    "instruction": "{request} Go.",
    "prefill": "```\n",
    "arithmetic": {"instruction": "{request}", "prefill": "", "count": 3},
}
REVISION = "a" * 40

Record = dict[str, Any]


def record(question: str = "Q?", answer: str = "An answer.") -> Record:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


RECORDS = [record(f"Q{number}?") for number in range(10)]


def write_problems(folder: Path) -> None:
    """Ten micro problems and five arithmetic ones, as the two stages write them."""
    micro = [
        Problem(
            set="micro_train",
            task_id=f"micro_train/{number}",
            kind="code",
            request=f"Write f{number}.",
            prompt=f'def f{number}(x):\n    """Add."""\n',
            entry_point=f"f{number}",
            canonical_solution=f"def f{number}(x):\n    return x + {number}\n",
            base_input=[[1]],
        ).record()
        for number in range(10)
    ]
    sums = [
        Problem(
            set="arithmetic",
            task_id=f"arithmetic/train/{number}",
            kind="math",
            request=f"What is 1 + {number}?",
            answer=str(1 + number),
            canonical_solution=f"1 + {number} = {1 + number}. The answer is {1 + number}.",
        ).record()
        for number in range(5)
    ]
    write_lines(folder / "micro.jsonl", micro)
    write_lines(folder / "arithmetic.jsonl", sums)


def make(folder: Path, source: Mapping[str, Any], **changes: Any) -> Context[Params]:
    """Run the stage."""
    folder.mkdir(exist_ok=True)
    write_problems(folder)
    params = Params(
        source=validate(InstructionSourceParams, {**NONE, **source}, "params.yaml"),
        instructions=validate(InstructionsParams, {**KEPT, **changes}, "params.yaml"),
    )
    inputs = {"micro": folder / "micro.jsonl", "arithmetic": folder / "arithmetic.jsonl", "files": folder}
    outputs = {name: folder / f"{name}.jsonl" for name in ("train", "validation")}
    context = Context(
        params,
        inputs,
        {**outputs, "manifest": folder / "manifest.json"},
        {"family": "tiny"},
        Checkpoints(folder / "store", "key"),
    )
    run(context)
    return context


def files(folder: Path, records: list[Any], name: str = "own.jsonl") -> dict[str, Any]:
    """The user's own chats: the file, and the params that name it."""
    folder.mkdir(exist_ok=True)
    write_lines(folder / name, records)
    return {"source": "files", "files": {**FIELDS, "paths": [str(folder / "own*")]}}


def hub(folder: Path, records: list[Record], config: str | None = None) -> dict[str, Any]:
    """A local folder in the hub's layout, and the params that name it."""
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(records), folder / "train-00000-of-00001.parquet")
    return {**FIELDS, "path": str(folder), "config": config, "split": "train", "revision": REVISION}


def chats(context: Context[Params]) -> list[Record]:
    return [row for name in ("validation", "train") for row in read_lines(context.outputs[name], ("id", "messages"))]


def questions(context: Context[Params], split: str) -> list[str]:
    return [row["messages"][0]["content"] for row in read_lines(context.outputs[split], ("messages",))]


def test_micro_chats_ask_as_the_models_are_asked_later(tmp_path: Path) -> None:
    context = make(tmp_path, {"source": "micro", "micro": MICRO})
    found = {chat["id"]: chat for chat in chats(context)}
    assert len(found) == 13
    assert found["micro_train/4"] == {
        "id": "micro_train/4",
        "messages": [
            {"role": "user", "content": "Write f4. Go."},
            {"role": "assistant", "content": "```\ndef f4(x):\n    return x + 4\n"},
        ],
        "prefill": "```\n",
    }
    assert found["arithmetic/train/2"]["messages"][1]["content"] == "1 + 2 = 3. The answer is 3."
    assert found["arithmetic/train/2"]["prefill"] == "" and "arithmetic/train/3" not in found
    assert context.counts == {"source": 13, "taken": 13, "train": 11, "validation": 2, "dropped": {}}


@pytest.mark.parametrize("opening", ["", "```\n"])
def test_a_signature_that_is_given_stands_in_the_answer_once(tmp_path: Path, opening: str) -> None:
    context = make(tmp_path, {"source": "micro", "micro": {**MICRO, "prefill": opening + "{signature}"}})
    found = {chat["id"]: chat for chat in chats(context)}["micro_train/4"]
    assert found["prefill"] == opening + "def f4(x):\n"
    assert found["messages"][1]["content"] == opening + "def f4(x):\n    return x + 4\n"


def test_more_arithmetic_than_there_is_is_refused(tmp_path: Path) -> None:
    arithmetic = {**MICRO["arithmetic"], "count": 6}  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"tiny\.instructions\.micro\.arithmetic\.count: 6 is more than the 5"):
        make(tmp_path, {"source": "micro", "micro": {**MICRO, "arithmetic": arithmetic}})


def test_the_splits_are_distinct_in_a_random_order_that_the_seed_decides(tmp_path: Path) -> None:
    source = files(tmp_path, RECORDS)
    contexts = [make(tmp_path / name, source, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    orders = [questions(context, "validation") + questions(context, "train") for context in contexts]
    assert sorted(orders[0]) == [f"Q{number}?" for number in range(10)] != orders[0]
    assert orders[0] == orders[1] != orders[2]
    assert path_hash(contexts[0].outputs["train"]) == path_hash(contexts[1].outputs["train"])


def test_max_examples_bounds_training_and_no_more_is_read(tmp_path: Path) -> None:
    context = make(tmp_path, files(tmp_path, RECORDS), max_examples=3)
    assert len(questions(context, "train")) == 3 and len(questions(context, "validation")) == 2
    assert context.counts["train"] == 3 and context.counts["taken"] == 5


def test_a_training_chat_that_validation_has_is_left_out(tmp_path: Path) -> None:
    context = make(tmp_path, files(tmp_path, RECORDS + RECORDS))
    assert not set(questions(context, "train")) & set(questions(context, "validation"))
    assert context.counts["dropped"] in ({"in_validation": 2}, {})
    assert context.counts["train"] + sum(context.counts["dropped"].values()) == 18


TOOLS: list[Record] = [
    record(answer="<tool_call>{}</tool_call>"),
    {**record(), "tools": [{"name": "search"}]},
    {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": None, "tool_calls": [{}]}]},
    {"messages": [*record()["messages"], {"role": "tool", "content": "1"}, *record()["messages"]]},
]


def test_chats_with_tool_calls_are_left_out_and_counted(tmp_path: Path) -> None:
    context = make(tmp_path, files(tmp_path, [*RECORDS, *TOOLS]))
    assert context.counts["dropped"] == {"tool_calls": 4} and len(chats(context)) == 10


def test_they_are_kept_if_params_say_so(tmp_path: Path) -> None:
    context = make(tmp_path, files(tmp_path, [*RECORDS, *TOOLS[:2]]), drop_tool_calls=False)
    assert len(chats(context)) == 12


def test_the_users_parquet_file_is_read_too(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(RECORDS[:3]), tmp_path / "own.parquet")
    context = make(tmp_path, files(tmp_path, RECORDS[3:]))
    assert len(chats(context)) == 10


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"text": "x"}, "the field 'messages' has no list of messages"),
        ([1], "holds list"),
        ({"messages": ["x"]}, "message 1: holds str"),
        (record(answer="  "), "no answer"),
        ({"messages": record()["messages"][:1]}, "no answer"),
        ({"messages": record()["messages"][1:]}, "no answer"),
        ({"messages": []}, "no answer"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "message 1: the role 'robot' is unknown"),
        ({"messages": [{"role": "user", "content": 1}]}, "message 1: the content is int"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "not valid Unicode"),
    ],
)
def test_a_record_of_the_user_that_is_no_chat_is_named(tmp_path: Path, bad: Any, message: str) -> None:
    source = files(tmp_path, RECORDS)
    with (tmp_path / "own.jsonl").open("a") as file:
        file.write(json.dumps(bad) + "\n")
    with pytest.raises(InputError) as caught:
        make(tmp_path, source)
    assert message in str(caught.value) and "own.jsonl, record 11" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"messages": ' + b"1" * 5000 + b"}", "not valid JSON (a number has more than 4300 digits)"),
        (b'{"messages": ' + b"[" * 100_000, "not valid JSON (nested too deeply)"),
        (b'{"messages": [], "messages": []}', "not valid JSON (the key 'messages' is there twice)"),
        (b"\xff", "not UTF-8 (byte 0: invalid start byte)"),
        (b'{"messages": "cut', "not valid JSON (Invalid control character"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    source = files(tmp_path, RECORDS)
    with (tmp_path / "own.jsonl").open("ab") as file:
        file.write(b"\n" + line + b"\n")
    with pytest.raises(InputError) as caught:
        make(tmp_path, source)
    assert f"own.jsonl, record 12: {message}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("chats/**.jsonl", "is no glob (Invalid pattern"),
        ("/", "'/' is a folder"),
        (".", "'.' is a folder"),
        ("link*", "link.jsonl: a link to nothing"),
        ("pipe*", "pipe.jsonl: not a regular file"),
    ],
)
def test_a_glob_of_chats_that_finds_none_is_named(
    tmp_path: Path, pattern: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.jsonl").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.jsonl")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        make(tmp_path, {"source": "files", "files": {**FIELDS, "paths": [pattern]}})
    assert message in str(caught.value)


def test_more_chats_than_memory_should_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "HELD", 10_000)
    rows = [record(answer="x" * 2000)] * 100
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "own.parquet")
    source = {"source": "files", "files": {**FIELDS, "paths": [str(tmp_path / "own*")]}}
    with pytest.raises(InputError, match=r"own\.parquet: the first 5 records have \d+ characters; expected .* 10000"):
        make(tmp_path, source)


def test_files_that_are_not_there_or_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"files\.paths\.0: no file matches 'nowhere/\*'"):
        make(tmp_path, {"source": "files", "files": {**FIELDS, "paths": ["nowhere/*"]}})
    with pytest.raises(InputError, match=r"own\.txt: '\.txt' files can't be read"):
        make(tmp_path, files(tmp_path, RECORDS, "own.txt"))


def test_the_sets_of_the_hub_are_concatenated_and_chats_without_answer_counted(tmp_path: Path) -> None:
    unanswered = {"messages": record()["messages"][:1]}
    sets = [hub(tmp_path / "first", RECORDS[:4]), hub(tmp_path / "second", [*RECORDS[4:], unanswered])]
    context = make(tmp_path, {"source": "tulu3_smoltalk", "hub": sets})
    assert context.counts["source"] == 11 and context.counts["dropped"] == {"no_answer": 1}
    names = {chat["messages"][0]["content"]: chat["id"] for chat in chats(context)}
    assert len(names) == 10 and names["Q3?"] == "0/train/3" and names["Q4?"] == "1/train/0"


def test_roles_are_translated(tmp_path: Path) -> None:
    called = {"user": "HUMAN", "assistant": "ASSISTANT"}
    theirs = [
        {"messages": [{**message, "role": called[message["role"]]} for message in one["messages"]]} for one in RECORDS
    ]
    dataset = {**hub(tmp_path / "ling", theirs), "roles": {"HUMAN": "user", "ASSISTANT": "assistant"}}
    context = make(tmp_path, {"source": "ling_coder", "hub": [dataset]})
    assert {tuple(message["role"] for message in chat["messages"]) for chat in chats(context)} == {
        ("user", "assistant")
    }


def test_a_bad_record_of_the_hub_is_named(tmp_path: Path) -> None:
    dataset = {**hub(tmp_path / "set", RECORDS), "messages": "turns"}
    with pytest.raises(InputError, match=r"set/train, record \d+: the field 'turns' has no list"):
        make(tmp_path, {"source": "ling_coder", "hub": [dataset]})


def test_a_set_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    dataset = {**hub(tmp_path / "set", RECORDS), "split": "nope"}
    with pytest.raises(InputError, match=r"tiny\.instructions\.hub\.0: .*split nope\) can't be opened"):
        make(tmp_path, {"source": "ling_coder", "hub": [dataset]})


def test_too_few_chats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 chats leave none for training"):
        make(tmp_path, files(tmp_path, RECORDS[:2]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "micro"}, "source 'micro' with micro null is impossible"),
        ({"source": "files"}, "source 'files' with files null is impossible"),
        ({"source": "ling_coder"}, "source 'ling_coder' with 0 sets in hub is impossible; expected 1"),
        ({"source": "web"}, "source: 'web' is wrong"),
    ],
)
def test_impossible_params_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        validate(InstructionSourceParams, {**NONE, **values}, "params.yaml")
    assert message in str(caught.value)
