"""The micro problems: held-out sets share nothing with training, and tests tell right programs from wrong ones."""

import ast
import builtins
import io
import keyword
import random
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from scoring.micro.examples import mutants
from scoring.micro.generate import HeldOut, MicroProblem, MicroSets, Recipe, generate, longest_request
from scoring.micro.operations import OPERATIONS, Kind, Operation
from scoring.micro.structures import Structure, behaviour, candidates, constants_of, function_of
from scoring.micro.words import ARGUMENTS, split

RECIPE = Recipe(
    seed=1,
    known_pairs=14,
    new_pairs=12,
    new_singles=6,
    held_out=HeldOut(constants=0.2, names=0.2, wordings=0.25, drawn=0.3),
    max_words=25,
    base_inputs=3,
    plus_inputs=9,
)
STRUCTURES = {structure.name: structure for structure in (*map(Structure, OPERATIONS), *candidates(OPERATIONS))}
RAISES = "raises"


@cache
def made(seed: int = 1) -> MicroSets:
    return generate(replace(RECIPE, seed=seed), 1800, 200, 200)


def held_out(sets: MicroSets) -> tuple[MicroProblem, ...]:
    return (*sets.iid, *sets.new)


def shape(source: str, constants: bool) -> str:
    """Code with names, and constants, replaced in the order of appearance; Python's own names stay."""
    seen: dict[str, str] = {}
    words: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string
        own = keyword.iskeyword(text) or hasattr(builtins, text) or (words and words[-1] == ".")
        if token.type == tokenize.NAME and not own:
            text = seen.setdefault(text, f"name{len(seen)}")
        elif constants and token.type in (tokenize.NUMBER, tokenize.STRING):
            text = tokenize.tok_name[token.type]
        words.append(text)
    return " ".join(words)


# What is held out


def test_the_same_recipe_gives_the_same_sets() -> None:
    assert generate(RECIPE, 120, 30, 30) == generate(RECIPE, 120, 30, 30)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_evaluated_request_prompt_or_solution_stands_in_training(seed: int) -> None:
    sets = made(seed)
    for field in ("request", "prompt", "solution"):
        training, held = ({getattr(problem, field) for problem in side} for side in (sets.train, held_out(sets)))
        assert not training & held


@pytest.mark.parametrize("seed", [1, 2])
def test_no_new_solution_stands_in_training_under_other_names(seed: int) -> None:
    sets = made(seed)
    known = {shape(problem.solution, constants=True) for problem in sets.train}
    assert not known & {shape(problem.solution, constants=True) for problem in sets.new}
    assert not {p.plain_request for p in sets.train} & {p.plain_request for p in sets.new}


def test_no_solution_with_constants_of_the_iid_set_stands_in_training_under_other_names() -> None:
    sets = made()
    known = {shape(problem.solution, constants=False) for problem in sets.train}
    same = [problem for problem in sets.iid if shape(problem.solution, constants=False) in known]
    assert len(same) <= sets.known_solutions < 0.5 * len(sets.iid)
    assert all(not STRUCTURES[problem.structure].slots for problem in same)


def test_iid_problems_are_of_structures_that_training_has_and_new_ones_are_not() -> None:
    sets = made()
    known, new = ({problem.structure for problem in problems} for problems in (sets.train, sets.new))
    assert {problem.structure for problem in sets.iid} <= known and not known & new
    assert 40 <= len(known) <= 65 and len(new) >= 12


def test_some_names_constants_and_sentences_are_never_in_training() -> None:
    sets = made()
    names = [{problem.entry_point for problem in side} for side in (sets.iid, sets.train, sets.new)]
    assert len(names[0] - names[1]) >= 5
    assert names[2] <= names[1]  # only the structure of a new problem is new
    known = {problem.unnamed_solution for problem in sets.train}
    assert not any(p.unnamed_solution in known for p in sets.iid if STRUCTURES[p.structure].slots)
    for pairs in (False, True):
        iid, train = (
            {p.request.partition(p.entry_point)[0] for p in side if ("(" in p.structure) is pairs}
            for side in (sets.iid, sets.train)
        )
        assert len(train) == 4 and len(iid | train) == 5


def test_a_new_problem_does_what_no_training_problem_does() -> None:
    sets = made()
    known: dict[tuple[Kind, ...], list[Callable[..., Any]]] = {}
    for problem in {p.unnamed_solution: p for p in sets.train}.values():
        known.setdefault(STRUCTURES[problem.structure].takes, []).append(function(problem))
    for problem in sets.new:
        takes = STRUCTURES[problem.structure].takes
        inputs = battery(takes, 300)
        own = [result(function(problem), given) for given in inputs]
        for other in known[takes]:
            assert any(result(other, given) != wanted for given, wanted in zip(inputs, own, strict=True)), problem


# What a problem looks like


def test_problems_are_distinct_short_and_evenly_spread() -> None:
    sets = made()
    for problems in (sets.train, sets.iid, sets.new):
        assert len({problem.request for problem in problems}) == len(problems)
        counts = [sum(p.structure == name for p in problems) for name in {p.structure for p in problems}]
        assert max(counts) - min(counts) <= 1
    for problems in (sets.iid, sets.new):
        assert len({problem.solution for problem in problems}) == len(problems)
    for problem in (*sets.train, *held_out(sets)):
        assert len(problem.request.split()) <= 25 and problem.solution.count("\n") <= 7


def test_requests_name_the_function_the_arguments_and_every_constant() -> None:
    for problem in held_out(made()):
        signature = f"{problem.entry_point}({', '.join(problem.arguments)})"
        assert signature in problem.request and problem.prompt.startswith(f"def {signature}:\n")
        for node in ast.walk(ast.parse(problem.solution)):
            if isinstance(node, ast.Constant) and node.value not in (0, 1, 2):
                assert str(node.value) in problem.request, problem


def test_argument_names_are_no_words_of_the_code() -> None:
    words = {word for operation in OPERATIONS for word in tokenize_words(operation.code)}
    assert not words & {name for names in ARGUMENTS.values() for name in names} - {"x", "y"}
    assert "r" not in words and not any("r" in names for names in ARGUMENTS.values())


def test_what_is_taught_does_what_the_reference_does_and_is_often_written_in_another_way() -> None:
    problems = made().train
    assert any(problem.taught != problem.solution for problem in problems)
    for problem in problems[:100]:
        right, taught = (
            behaviour(text, problem.entry_point, problem.takes) for text in (problem.solution, problem.taught)
        )
        assert right == taught


def test_no_request_has_more_words_than_its_structure_may_have() -> None:
    for problem in (*made().train, *held_out(made())):
        assert len(problem.request.split()) <= longest_request(STRUCTURES[problem.structure])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_phrase_of_an_operation_names_its_arguments_and_constants(operation: Operation) -> None:
    fields = [name for name in ("{x}", "{y}", "{c}", "{d}") if name in operation.code]
    assert len(operation.phrases) >= 4 and len(fields) == len(operation.takes) + len(operation.slots)
    for phrase in operation.phrases:
        assert all(field in phrase for field in fields), phrase


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_an_operations_other_codes_do_the_same_and_go_into_the_same_places(operation: Operation) -> None:
    single = Structure(operation)
    for constants in constants_of(single.slots):
        functions = [
            function_of(single.solution("f", ("x", "y")[: len(single.takes)], constants, form), "f")
            for form in range(len(operation.codes))
        ]
        for given in battery(single.takes, 40):
            assert len({result(call, given) for call in functions}) == 1
    assert len({"return " in code for code in operation.codes}) == 1


def test_no_two_operations_have_the_same_code_or_do_the_same() -> None:
    singles = [Structure(operation) for operation in OPERATIONS]
    sources = [
        single.solution("f", ("x", "y")[: len(single.takes)], next(constants_of(single.slots))) for single in singles
    ]
    written = [
        single.solution("f", ("x", "y")[: len(single.takes)], next(constants_of(single.slots)), form)
        for single in singles
        for form in range(len(single.outer.codes))
    ]
    assert len({shape(source, constants=True) for source in written}) == len(written)
    outputs = [
        (single.takes, tuple(result(function_of(source, "f"), given) for given in battery(single.takes, 300)))
        for single, source in zip(singles, sources, strict=True)
    ]
    assert len(set(outputs)) == len(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_no_operation_changes_its_arguments(operation: Operation) -> None:
    single = Structure(operation)
    call = function_of(single.solution("f", ("x", "y")[: len(single.takes)], next(constants_of(single.slots))), "f")
    for given in battery(single.takes, 20):
        before = deepcopy(given)
        with suppress(ValueError, IndexError):
            call(*given)
        assert given == before


def test_operations_on_two_arguments_take_numbers() -> None:
    assert all(set(operation.takes) == {Kind.INT} for operation in OPERATIONS if len(operation.takes) > 1)


# Tests of a problem


def test_examples_give_different_results_and_the_reference_raises_on_none() -> None:
    for problem in (*made().train[:300], *held_out(made())):
        results = [result(function(problem), given) for given in (*problem.examples.base, *problem.examples.plus)]
        assert RAISES not in results and len(set(results)) > 1
        assert len(problem.examples.base) == 3 and len(problem.examples.plus) >= 5


def test_examples_tell_every_wrong_program_close_to_the_reference_that_any_input_tells() -> None:
    missed = [
        (problem.solution, wrong)
        for problem in held_out(made())
        for wrong in (*mutants(problem.solution), *simple_wrong(problem))
        if passes(problem, wrong) and differs(problem, wrong)
    ]
    assert missed == []


@pytest.mark.parametrize(
    ("operation", "right", "wrong"),
    [
        ("greater", ">", ">="),
        ("at_least", ">=", ">"),
        ("keep_above", ">", ">="),
        ("add", "+", "-"),
        ("below", "<", "<="),
    ],
)
def test_examples_lie_on_the_boundary(operation: str, right: str, wrong: str) -> None:
    problems = [problem for problem in (*made().train, *made().iid) if problem.structure == operation]
    assert problems or operation in {problem.structure for problem in made().new}
    for problem in problems:
        head, _, body = problem.solution.partition(":\n")
        assert not passes(problem, f"{head}:\n{body.replace(f' {right} ', f' {wrong} ')}"), problem.solution


def simple_wrong(problem: MicroProblem) -> Iterator[str]:
    """The first argument, one of two operations, and each output of the examples for all inputs."""
    head = problem.solution.partition("\n")[0]
    yield f"{head}\n    return {problem.arguments[0]}"
    lines = problem.solution.split("\n")
    if lines[1].startswith("    r = "):
        yield f"{head}\n    return r" if len(lines) < 3 else "\n".join((head, lines[1], "    return r"))
        yield "\n".join((head, f"    r = {problem.arguments[0]}", *lines[2:]))
    for given in problem.examples.base:
        yield f"{head}\n    return {result(function(problem), given)}"


def passes(problem: MicroProblem, solution: str) -> bool:
    inputs = (*problem.examples.base, *problem.examples.plus)
    return agree(problem, solution, inputs)


def differs(problem: MicroProblem, solution: str) -> bool:
    """Whether any of many inputs that the reference takes tells a program from it."""
    inputs = [
        given
        for given in battery(STRUCTURES[problem.structure].takes, 150)
        if result(function(problem), given) != RAISES
    ]
    return not agree(problem, solution, inputs)


def agree(problem: MicroProblem, solution: str, inputs: Iterable[Sequence[Any]]) -> bool:
    other = function_of(solution, problem.entry_point)
    return all(result(function(problem), given) == result(other, given) for given in inputs)


def function(problem: MicroProblem) -> Callable[..., Any]:
    return function_of(problem.solution, problem.entry_point)


def result(call: Callable[..., Any], given: Sequence[Any]) -> str:
    try:
        return repr(call(*deepcopy(given)))
    except Exception:  # a wrong program may raise anything
        return RAISES


@cache
def battery(takes: tuple[Kind, ...], count: int) -> tuple[tuple[Any, ...], ...]:
    """Random arguments, drawn without a look at any problem."""
    choice = random.Random(f"{takes} {count}")
    return tuple(tuple(drawn(kind, choice) for kind in takes) for _ in range(count))


def drawn(kind: Kind, choice: random.Random) -> Any:
    def text() -> str:
        letters = choice.choice(("aeiostrn", "ab-! #pyokzx", "abcdefghijklmnopqrstuvwxyz ABC"))
        return "".join(choice.choice(letters) for _ in range(choice.randrange(14)))

    match kind:
        case Kind.INT:
            return choice.randrange(-30, 60)
        case Kind.TEXT:
            return text()
        case Kind.INTS:
            return [choice.randrange(-10, 30) for _ in range(choice.randrange(9))]
    return [text().replace(" ", "") for _ in range(choice.randrange(6))]


def tokenize_words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() or letter == "_" else " " for letter in text).split()


# Pools and mistakes


def test_a_pool_keeps_and_holds_out_something_and_nothing_twice() -> None:
    for share in (0.001, 0.5, 0.999):
        pool = split(tuple(range(7)), share, random.Random(0))
        assert pool.known and pool.held and sorted(pool.known + pool.held) == list(range(7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"new_pairs": 10**4}, r"there are \d+ pairs of operations, not 10014"),
        ({"new_singles": 10**3}, "new ones leave none to know"),
        ({"max_words": 2}, "there are 0 pairs of operations, not 26"),
    ],
)
def test_what_can_not_be_made_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(replace(RECIPE, **changes), 60, 5, 5)
