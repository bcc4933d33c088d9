"""The arithmetic problems: distinct, right, and split by what is asked, not by how."""

import ast
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.micro.arithmetic import NAMES, Exercise, Operation, Ranges, Recipe, capacity, generate

RECIPE = Recipe(
    seed=5,
    operations=tuple(Operation),
    ranges=Ranges(largest=20, largest_factor=9, largest_step=8),
    held_out=0.2,
    plain=0.5,
)
recipes = st.builds(
    Recipe,
    seed=st.integers(0, 10**9),
    operations=st.permutations(list(Operation)).flatmap(
        lambda order: st.integers(1, len(order)).map(lambda count: tuple(order[:count]))
    ),
    ranges=st.builds(
        Ranges, largest=st.integers(4, 25), largest_factor=st.integers(4, 10), largest_step=st.integers(3, 6)
    ),
    held_out=st.floats(0.05, 0.6),
    plain=st.floats(0, 1),
)


def fact(exercise: Exercise) -> object:
    """What is asked, whatever the order of a commutative operation."""
    if exercise.operation in (Operation.ADD, Operation.MULTIPLY):
        return exercise.operation, frozenset(exercise.operands)
    if exercise.operation is Operation.ADD_SUBTRACT:
        return exercise.operation, frozenset(exercise.operands[:2]), exercise.operands[2]
    return exercise.operation, exercise.operands


@settings(max_examples=30, deadline=None)
@given(recipe=recipes)
def test_no_tested_fact_and_no_text_stands_in_training(recipe: Recipe) -> None:
    sets = generate(recipe, 60, 20)
    assert (len(sets.train), len(sets.test)) == (60, 20)
    assert not {fact(exercise) for exercise in sets.train} & {fact(exercise) for exercise in sets.test}
    texts = [exercise.request for exercise in (*sets.train, *sets.test)]
    assert len(set(texts)) == len(texts)


@settings(max_examples=30, deadline=None)
@given(recipe=recipes)
def test_every_worked_answer_is_right_and_ends_in_the_answer(recipe: Recipe) -> None:
    for exercise in generate(recipe, 40, 10).train:
        for left, right in re.findall(r"([\d +*-]+) = (\d+)", exercise.response):
            assert eval(compile(ast.parse(left.strip(), mode="eval"), "", "eval")) == int(right)
        assert exercise.response.endswith(f"= {exercise.answer}. The answer is {exercise.answer}.")
        assert [int(number) for number in re.findall(r"\d+", exercise.request)] == list(exercise.operands)
        assert int(exercise.answer) >= 0 and min(exercise.operands) >= 2


def test_the_same_recipe_gives_the_same_sets_and_another_seed_others() -> None:
    assert generate(RECIPE, 50, 10) == generate(RECIPE, 50, 10)
    assert generate(RECIPE, 50, 10) != generate(replace(RECIPE, seed=6), 50, 10)


def test_operations_and_wordings_are_dealt_evenly() -> None:
    sets = generate(RECIPE, 402, 42)
    counts = [sum(exercise.operation is operation for exercise in sets.train) for operation in Operation]
    assert counts == [101, 101, 100, 100]
    stories = sum(any(name in exercise.request for name in NAMES) for exercise in sets.train)
    assert abs(stories - 201) <= 4


@pytest.mark.parametrize("plain", [0.0, 0.5, 1.0])
def test_a_recipe_gives_as_many_as_it_says_and_no_more(plain: float) -> None:
    recipe = replace(RECIPE, ranges=Ranges(4, 4, 3), plain=plain)
    train, test = capacity(recipe)
    sets = generate(recipe, train, test)
    assert len({exercise.request for exercise in (*sets.train, *sets.test)}) == train + test
    for counts in ((train + len(Operation), test), (train, test + len(Operation))):
        with pytest.raises(ValueError, match="distinct problems of"):
            generate(recipe, *counts)
