"""Verdicts are EvalPlus's own: on every kind of output, on its special oracles, and on what it extracts."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.code_scoring import (
    Judged,
    Score,
    Verdict,
    _longest_program,
    check,
    expected,
    extract,
    score,
)
from scoring.sandbox import Sandbox
from tests.scoring.evalplus_parity import encoded, evalplus_passes, ours, problem
from tests.scoring.sandboxes import CHECK, GOOD, PATIENT, SECRET, SETTINGS, TestProblem

RIGHT = Judged(Verdict.PASS)
SECONDS = 2.0
MANY_LINES = 200


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(PATIENT) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALPLUS_MAX_MEMORY_BYTES", "-1")  # EvalPlus forks this process, which holds torch


def cases(known: Sequence[tuple[Any, ...]], name: Callable[[Any], str]) -> list[Any]:
    """EvalPlus's forks of this process take their time: one case in five is for every day."""
    return [
        pytest.param(*case, id=name(case), marks=[] if number % 5 == 0 else pytest.mark.slow)
        for number, case in enumerate(known)
    ]


# What is expected, what a program returns, the tolerance
OUTPUTS: list[tuple[Any, str, float]] = [
    *(
        (1, text, 0)
        for text in ("1", "1.0", "True", "1 + 0j", "2", "'1'", "None", "[1]", "1 + 1e-9", "IntEnum('E', 'a')(1)")
    ),
    *(
        (1, text, 0)
        for text in ("numpy.int64(1)", "numpy.float32(1)", "Fraction(2, 2)", "Decimal(1)", "numpy.array(5)")
    ),
    *(
        (1.5, text, 0)
        for text in ("1.5", "1.5 + 1e-7", "1.5 + 1e-5", "numpy.float64(1.5)", "numpy.float64(1.5 + 1e-9)")
    ),
    *(
        (1.5, text, 0)
        for text in ("Fraction(3, 2)", "Decimal('1.5')", "Decimal('1.5000000001')", "'1.5'", "(1.5,)", "1")
    ),
    *((1.0, text, 0) for text in ("1", "True", "1 + 1e-9", "nan", "inf")),
    *((2, text, 1e-3) for text in ("2", "2.0", "2.0001", "numpy.int64(2)", "3", "2 + 1e-5j")),
    *((math.nan, text, 0) for text in ("nan", "1.0")),
    *((math.inf, text, 0) for text in ("inf", "-inf", "1e308", "10 ** 400")),
    *((-0.0, text, 0) for text in ("0.0", "0", "-0.0")),
    *(
        ([1, 2], text, 0)
        for text in ("[1, 2]", "(1, 2)", "[1.0, True + 1]", "range(1, 3)", "iter([1, 2])", "deque([1, 2])")
    ),
    *(
        ([1, 2], text, 0)
        for text in ("numpy.array([1, 2])", "[numpy.int64(1), 2]", "L([1, 2])", "[2, 1]", "{1, 2}", "'12'")
    ),
    *(
        ([1.0, 2.0], text, 0)
        for text in ("[1.0, 2.0 + 1e-8]", "(1.0, 2.0 + 1e-8)", "[1, 2 + 1e-8]", "[1.0]", "[1.0, 'x']")
    ),
    *(
        ([1.0, 2.0], text, 0)
        for text in ("[1.0, [2.0]]", "L([1.0, 2.0 + 1e-8])", "[1.0, numpy.float64(2 + 1e-8)]", "[]")
    ),
    *(
        ([[1.0], [2.0]], text, 1e-4)
        for text in ("[[1.0], [2.00001]]", "[[1.0], [2.0, 3.0]]", "[(1.0,), (2.0,)]", "[1.0, 2.0]")
    ),
    *(([0.0], text, 0) for text in ("[10 ** 400]", "[1e-9]", "['' * 9]", "[None]", "[0j]")),
    *(((1, 2), text, 0) for text in ("(1, 2)", "[1, 2]", "P(1, 2)", "P(2, 1)", "T((1, 2))")),
    *((("a", [1.5]), text, 0) for text in ("('a', [1.5])", "('a', [1.5 + 1e-9])", "['a', [1.5]]")),
    *(
        ({"a": 1}, text, 0)
        for text in ("{'a': 1}", "OrderedDict(a=1)", "Counter('a')", "defaultdict(int, a=1)", "{'a': True}")
    ),
    *(
        ({"a": 1, "b": 2}, text, 0)
        for text in ("{'b': 2, 'a': 1}", "OrderedDict(b=2, a=1)", "{'a': 1}", "[('a', 1), ('b', 2)]")
    ),
    *(
        ({1, 2}, text, 0)
        for text in ("{1, 2}", "frozenset({1, 2})", "{1: 0, 2: 0}.keys()", "[1, 2]", "{1.0, 2}", "{1: 1}.items()")
    ),
    *(("ab", text, 0) for text in ("'ab'", "S('ab')", "b'ab'", "numpy.str_('ab')", "['a', 'b']", "'ab '")),
    *((b"ab", text, 0) for text in ("b'ab'", "bytearray(b'ab')", "'ab'", "memoryview(b'ab')", "memoryview(b'ax')")),
    *((None, text, 0) for text in ("None", "0", "[]", "E()")),
    *((True, text, 0) for text in ("True", "1", "1.0", "numpy.bool_(True)", "'True'", "False", "2")),
    *((Fraction(1, 2), text, 0) for text in ("Fraction(1, 2)", "0.5", "Decimal('0.5')", "0.50000001")),
    *((10**40, text, 0) for text in ("10 ** 40", "1e40", "10 ** 40 + 1", "int(1e40)")),
    *((1 + 2j, text, 0) for text in ("1 + 2j", "(1, 2)", "1 + 2.0000001j")),
    *((range(3), text, 0) for text in ("range(3)", "range(0, 3, 1)", "[0, 1, 2]")),
    *(([], text, 0) for text in ("[]", "()", "None", "numpy.array([])")),
]
PREAMBLE = """
import numpy
from collections import *
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from math import inf, nan
P = namedtuple('P', 'x y')
class E: pass
class S(str): pass
class L(list): pass
class T(tuple): pass
"""


@pytest.mark.parametrize(("wanted", "text", "atol"), cases(OUTPUTS, lambda case: f"{case[0]}-{case[1]}"))
def test_a_verdict_on_an_output_is_evalplus_s(wanted: Any, text: str, atol: float, sandbox: Sandbox) -> None:
    made = problem("local/0", "f", [[0]], [wanted], atol)
    solution = f"{PREAMBLE}def f(x):\n    return {text}\n"
    assert (ours(made, solution, sandbox) == RIGHT) is evalplus_passes(made, solution, SECONDS)


# Task, entry point, inputs, expected, solution's expression of x and y
SPECIAL: list[tuple[str, str, list[Any], list[Any], str]] = [
    *(("Mbpp/164", "are_equivalent", [[36, 57]], [False], text) for text in ("True", "'x'", "E()", "1 / 0")),
    *(("Mbpp/295", "sum_div", [[8]], [7], text) for text in ("7", "0", "0.0", "8", "'x'")),
    *(("Mbpp/581", "surface_Area", [[3, 4]], [33], text) for text in ("34", "33", "35", "34.0", "'x'")),
    *(("Mbpp/558", "digit_distance_nums", [[23, 56]], [7], text) for text in ("6", "7", "8", "numpy.int64(6)")),
    *(
        ("Mbpp/2", "similar_elements", [[(3, 4), (4, 3)]], [(4, 3)], text)
        for text in ("(3, 4)", "{3, 4}", "iter([4, 3])")
    ),
    *(
        ("Mbpp/2", "similar_elements", [[(3, 4), (4, 3)]], [(4, 3)], text)
        for text in ("{3: 0, 4: 1}", "(3,)", "[[3], [4]]", "1")
    ),
    *(
        ("Mbpp/2", "similar_elements", [[(3, 4), (4, 3)]], [(4, 3)], text)
        for text in ("(z for z in (4, 3, 3))", "None", "'43'")
    ),
    *(("Mbpp/233", "check_str", [["a"]], [True], text) for text in ("'x'", "E()", "None", "True", "False", "0")),
    *(("Mbpp/233", "check_str", [["a"]], [False], text) for text in ("None", "False", "1", "E()")),
    *(("local/1", "check_str", [["a"]], [True], text) for text in ("'x'", "True")),
    *(("local/2", "similar_elements", [[(3, 4), (4, 3)]], [(4, 3)], text) for text in ("(3, 4)", "(4, 3)")),
]


@pytest.mark.parametrize(
    ("task_id", "entry_point", "inputs", "wanted", "text"),
    cases(SPECIAL, lambda case: f"{case[0]}-{case[1]}-{case[4]}"),
)
def test_a_verdict_of_a_special_oracle_is_evalplus_s(
    task_id: str, entry_point: str, inputs: list[Any], wanted: list[Any], text: str, sandbox: Sandbox
) -> None:
    made = problem(task_id, entry_point, inputs, wanted, 0)
    solution = f"{PREAMBLE}def {entry_point}(x, y=0):\n    return {text}\n"
    assert (ours(made, solution, sandbox) == RIGHT) is evalplus_passes(made, solution, SECONDS)


@pytest.mark.parametrize(
    ("text", "right"),
    [("-0.5", True), ("-0.50001", True), ("numpy.float64(-.5)", True), ("0.0", False), ("'x'", False)],
)
def test_a_zero_is_right_wherever_it_is_as_in_evalplus_after_0_3_1(text: str, right: bool, sandbox: Sandbox) -> None:
    made = problem("HumanEval/32", "find_zero", [[[1, 2]]], [7], 1e-4)
    solution = f"{PREAMBLE}def find_zero(x):\n    return {text}\n"
    assert (ours(made, solution, sandbox) == RIGHT) is right
    assert not evalplus_passes(made, solution, SECONDS)  # 0.3.1 forgets to count the problem's inputs


SERIES: list[str] = [
    "total = []\ndef f(x):\n    total.append(x)\n    return float(sum(total))\n",  # keeps state between calls
    "def f(x):\n    return float(x)\n",
    "def f(x):\n    return x + 1e-9\n",  # floats are expected first: the tolerance stays
    "import sys\ndef f(x):\n    print(x)\n    return float(x) if x else sys.exit()\n",
    "def f(x):\n    return float(x) if x < 3 else undefined\n",
    "def g(x):\n    return float(x)\n",
    "def f(x):\n    return float(input())\n",
    "def f(:\n",
    "raise SystemExit\n",
    "f = float\n",
    "def f(*x, **y):\n    return float(*x)\n",
    "if __name__ == '__main__':\n    1 / 0\nf = float\n",
]


@pytest.mark.parametrize("solution", SERIES)
def test_a_verdict_on_a_series_of_calls_is_evalplus_s(solution: str, sandbox: Sandbox) -> None:
    made = problem("local/0", "f", [[1], [2], [3]], [1.0, 2.0, 3], 0)
    assert (ours(made, solution, sandbox) == RIGHT) is evalplus_passes(made, solution, SECONDS)


def test_the_first_input_that_is_not_right_decides(sandbox: Sandbox) -> None:
    wrong = problem("local/0", "f", [[0], [1], [2]], [5, 6, 7], 0)
    assert ours(wrong, "def f(x):\n    return 5 if x == 0 else [][x]\n", sandbox) == Judged(
        Verdict.ERROR, "input 1: IndexError"
    )
    assert ours(wrong, "def f(x):\n    return 5 if x != 1 else 9\n", sandbox) == Judged(Verdict.FAIL, "input 1")
    assert ours(wrong, "def f(x):\n    return 9 if x == 0 else [][x]\n", sandbox) == Judged(Verdict.FAIL, "input 0")
    assert ours(wrong, "def f(x):\n    return 5 + x\n", sandbox) == RIGHT


def test_base_and_plus_run_in_processes_of_their_own(sandbox: Sandbox) -> None:
    both = replace(SECRET, plus_input=[[1]], plus_expected=[3])
    solution = "n = 0\ndef f(x):\n    global n\n    n += 1\n    return 3 if n == 1 else 0\n"
    assert score(both, solution, sandbox) == Score(Judged(Verdict.FAIL, "input 0"), RIGHT)
    assert score(replace(both, plus_input=[]), GOOD, sandbox) == Score(RIGHT, None)


def test_an_oracle_takes_the_place_of_base_inputs(sandbox: Sandbox) -> None:
    asked = replace(SECRET, check=CHECK, base_input=[], base_expected=[])
    assert score(asked, GOOD, sandbox) == Score(RIGHT, None)
    assert score(asked, "def f(x):\n    return x\n", sandbox) == Score(Judged(Verdict.FAIL, "AssertionError"), None)
    assert score(asked, "def f(x):\n    return y\n", sandbox) == Score(Judged(Verdict.ERROR, "NameError"), None)
    assert score(asked, "", sandbox) == Score(Judged(Verdict.ERROR, "KeyError"), None)


def test_an_oracle_sees_what_a_program_returns_and_how_it_is_called(sandbox: Sandbox) -> None:
    oracle = (
        "import random\n"
        "def check(candidate):\n"
        "    assert candidate((1, {2}), named=[3]) == {'x': (1, {2}), 'y': [3]}\n"
        "    values = [random.random() for _ in range(5)]\n"
        "    assert candidate(values, named=None)['x'] == values and candidate([], named=0) is not None\n"
    )
    solution = "def f(x, named):\n    return {'x': x, 'y': named}\n"
    assert check(oracle, "f", solution, sandbox) == RIGHT


@pytest.mark.parametrize("call", ["while True: pass", "import time; time.sleep(9)"])
def test_an_oracle_s_program_ends_in_time(call: str) -> None:
    with Sandbox(SETTINGS) as quick:
        assert check(CHECK, "f", f"def f(x):\n    {call}\n", quick).verdict is Verdict.TIMEOUT
        assert check(CHECK, "f", GOOD, quick) == RIGHT


def test_expected_outputs_are_recorded_from_the_reference(sandbox: Sandbox) -> None:
    inputs = [[1], [2]]
    assert expected(TestProblem(), "def f(x):\n    return (x, {x: {x}})\n", inputs, sandbox) == [
        encoded((value, {value: {value}})) for value in (1, 2)
    ]
    matching = TestProblem(task_id="Mbpp/285", entry_point="text_match_three")
    source = "import re\ndef text_match_three(x):\n    return re.match('1', str(x))\n"
    assert expected(matching, source, inputs, sandbox) == [True, False]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def f(x):\n    return x / (x - 2)\n", "input 1: error ZeroDivisionError"),
        ("f = iter\n", "input 0: error TypeError"),
    ],
)
def test_a_reference_without_a_plain_output_is_named(source: str, why: str, sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match=why):
        expected(TestProblem(), source, [[1], [2]], sandbox)


# Extraction


def test_the_program_is_taken_out_of_an_answer() -> None:
    answer = "So:\n```python\nimport math\n\ndef g(x):\n    return x\n\ndef f(x):\n    return g(x)\n\nf(1)\n```\nDone."
    assert extract(answer, "f", MANY_LINES) == "import math\ndef g(x):\n    return x\ndef f(x):\n    return g(x)"


def test_an_answer_that_completes_a_prompt_is_taken_from_its_beginning() -> None:
    assert extract("def f(x):\n" + "    return x\n```\nBye!", "f", MANY_LINES) == "def f(x):\n    return x"


@pytest.mark.parametrize(
    "text", ["", "\n" * 5000, "no program", "def f(x):\n    return '\0'", "\ud800", "(" * 5000, "-" * 20000]
)
def test_any_text_is_extracted_in_bounded_time(text: str) -> None:
    extract(text, "f", MANY_LINES)


def test_blank_lines_of_a_long_answer_do_not_hide_its_program() -> None:
    assert (
        extract("\n" * 5000 + "def f(x):\n    return x\n" + "\n" * 5000, "f", MANY_LINES) == "def f(x):\n    return x"
    )


LINES = ("def f(x):", "    return x", "x = 1", "", "  ", "(", ")", "if x:", "```", "import math", "Hello there.", "#")


@pytest.fixture(scope="module")
def evalplus_sanitize() -> ModuleType:
    """EvalPlus's module as it was installed, whatever has been changed in this process."""
    spec = find_spec("evalplus.sanitize")
    assert spec is not None and spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=9))
def test_the_longest_program_is_evalplus_s(evalplus_sanitize: ModuleType, lines: list[str]) -> None:
    text = "\n".join(lines)
    assert _longest_program(text) == evalplus_sanitize.code_extract(text)
    assert extract(text, "f", MANY_LINES) == evalplus_sanitize.sanitize(text, "f")


def test_a_long_answer_is_extracted_quickly() -> None:
    started = time.process_time()
    assert extract("\n".join(["def f(x): return x"] * 200), "f", MANY_LINES) == "def f(x): return x"
    assert time.process_time() - started < 5
