"""A generator of small Python problems: requests in English, reference solutions, tests, and two held-out sets.

A pure function of its recipe; knows no files and no model. `iid` asks for known structures with constants that training
doesn't show with them, and some names and wordings that it never shows; `new` asks for structures that training
doesn't have.
"""

import ast
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property

from scoring.micro.examples import Examples, examples_for
from scoring.micro.operations import OPERATIONS, Kind, Slot
from scoring.micro.structures import FORMS, Behaviour, Structure, behaviour, choose, constants_of, filled
from scoring.micro.words import ARGUMENTS, COMPOSED, CONSTANTS, FUNCTIONS, RESULT, SENTENCES, split

_PATIENCE = 200
"""Draws of a structure without a new problem, after which it has none."""


@dataclass(frozen=True)
class HeldOut:
    """Shares of the pools that training never shows, and how often `iid` draws from them.

    Args:
        constants: share of each structure's choices of constants.
        names: share of the functions' names.
        wordings: share of each operation's phrases, and of the sentences around them.
        drawn: probability that a problem of `iid` takes held-out names or wordings, each for itself. One with constants
            takes a held-out choice of them in any case, one without takes names or wordings.
    """

    constants: float
    names: float
    wordings: float
    drawn: float


@dataclass(frozen=True)
class Recipe:
    """Which problems there can be.

    Args:
        seed: of every split and draw.
        known_pairs: structures of two operations in training.
        new_pairs: new structures, of two operations that training knows one by one.
        new_singles: new structures of one operation that training doesn't know.
        held_out: what `iid` has that training hasn't.
        max_words: of a request about two operations, however it is worded: longer pairs are not taken.
        base_inputs: inputs that a problem is tested with.
        plus_inputs: further ones; more than so many where telling wrong programs apart takes them.
    """

    seed: int
    known_pairs: int
    new_pairs: int
    new_singles: int
    held_out: HeldOut
    max_words: int
    base_inputs: int
    plus_inputs: int


@dataclass(frozen=True)
class MicroProblem:
    """One problem.

    Args:
        structure: name of its structure.
        request: what the user asks, in English.
        entry_point: the function that is asked for.
        arguments: names of its arguments.
        takes: their kinds.
        prompt: signature and docstring.
        solution: the reference, a whole function without docstring.
        taught: it or another way to write it: what a model learns. That one problem has several right answers, whose
            parts don't mix, is what makes decoding many tokens at once hard.
        examples: arguments of the calls that it is tested with.
    """

    structure: str
    request: str
    entry_point: str
    arguments: tuple[str, ...]
    takes: tuple[Kind, ...]
    prompt: str
    solution: str
    taught: str
    examples: Examples

    @cached_property
    def unnamed_solution(self) -> str:
        """The solution with the names of function and arguments replaced."""
        return self._renamed(ast.parse(self.solution))

    @cached_property
    def plain_solution(self) -> str:
        """The solution with its constants replaced, too: the same for all problems of a structure."""
        tree = ast.parse(self.solution)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant):
                node.value = "" if isinstance(node.value, str) else 0
        return self._renamed(tree)

    @cached_property
    def plain_request(self) -> str:
        """The request with names and constants replaced."""
        names = self._placeholders()
        text = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), self.request)
        return re.sub(r'"[^"]*"|\d+', "#", text)

    def _placeholders(self) -> dict[str, str]:
        return {name: f"_{place}" for place, name in enumerate((self.entry_point, *self.arguments))}

    def _renamed(self, tree: ast.Module) -> str:
        names = self._placeholders()
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name) if name in names:
                    node.id = names[name]
                case ast.arg(arg=name):
                    node.arg = names[name]
                case ast.FunctionDef(name=name):
                    node.name = names[name]
        return ast.unparse(tree)


def longest_request(structure: Structure) -> int:
    """Words of a structure's longest request."""
    names = ("x", "y")[: len(structure.takes)]
    phrases = [
        max((filled(phrase, given, ("0", "0")) for phrase in operation.phrases), key=lambda text: len(text.split()))
        for operation, given in zip(structure.parts(), [names, (RESULT,)], strict=False)
    ]
    sentences = SENTENCES if structure.inner is None else COMPOSED
    texts = (
        sentence.format(signature=f"f({', '.join(names)})", first=phrases[0], what=phrases[-1])
        for sentence in sentences
    )
    return max(len(text.split()) for text in texts)


@dataclass(frozen=True)
class MicroSets:
    """The sets. No request, prompt or solution of a held-out set is in training; none of `new` is, whatever the names.

    Args:
        dropped: why training problems were left out, and how many: a held-out set has the like.
        known_solutions: problems of `iid` whose solution stands in training with other names.
    """

    train: tuple[MicroProblem, ...]
    iid: tuple[MicroProblem, ...]
    new: tuple[MicroProblem, ...]
    dropped: Mapping[str, int]
    known_solutions: int


def generate(recipe: Recipe, train: int, iid: int, new: int) -> MicroSets:
    """Distinct problems in random order, spread evenly over structures; the same arguments give the same sets.

    Args:
        train, iid, new: problems of each set.

    Raises:
        ValueError: there are not so many structures, or not so many distinct problems; a structure has none at all.
    """
    structures = choose(
        recipe.seed,
        recipe.known_pairs,
        recipe.new_pairs,
        recipe.new_singles,
        lambda pair: longest_request(pair) <= recipe.max_words,
    )
    maker = _Maker(recipe)
    held_iid = maker.problems("iid", structures.known, iid, maker.some_held, _once())
    held_new = maker.problems("new", structures.new, new, _nothing_held, _once(structures.behaviours))
    guard = _Guard.against(held_iid, held_new)
    training = maker.problems("train", structures.known, train, _as_in_training, guard.admits)
    known = {problem.unnamed_solution for problem in training}
    return MicroSets(
        train=training,
        iid=held_iid,
        new=held_new,
        dropped=dict(sorted(guard.dropped.items())),
        known_solutions=sum(problem.unnamed_solution in known for problem in held_iid),
    )


class _Constants(StrEnum):
    """Which choices of constants a problem of a structure may have."""

    KNOWN = "known"
    HELD = "held"
    ANY = "any"


@dataclass(frozen=True)
class _Held:
    """Which pools a problem draws its held-out values from."""

    names: bool = False
    wordings: bool = False
    constants: _Constants = _Constants.ANY


def _as_in_training(structure: Structure, choice: random.Random) -> _Held:
    return _Held(constants=_Constants.KNOWN)


def _nothing_held(structure: Structure, choice: random.Random) -> _Held:
    return _Held()


def _once(known: frozenset[Behaviour] = frozenset()) -> Callable[[MicroProblem], bool]:
    """Admits problems of distinct solutions, none of which does what is known."""
    solutions: set[str] = set()

    def admits(problem: MicroProblem) -> bool:
        fresh = problem.solution not in solutions
        solutions.add(problem.solution)
        return fresh and not (known and behaviour(problem.solution, problem.entry_point, problem.takes) in known)

    return admits


@dataclass(frozen=True)
class _Guard:
    """Keeps what is evaluated out of training, and counts it."""

    kept_out: Mapping[str, frozenset[str]]
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def against(cls, iid: Sequence[MicroProblem], new: Sequence[MicroProblem]) -> "_Guard":
        held = [*iid, *new]
        kept_out = {name: frozenset(read(problem) for problem in held) for name, read in _EXACT.items()}
        kept_out |= {name: frozenset(read(problem) for problem in new) for name, read in _PLAIN.items()}
        return cls(kept_out)

    def admits(self, problem: MicroProblem) -> bool:
        for name, read in {**_EXACT, **_PLAIN}.items():
            if read(problem) in self.kept_out[name]:
                self.dropped[name] += 1
                return False
        return True


_EXACT: Mapping[str, Callable[[MicroProblem], str]] = {
    "request": lambda problem: problem.request,
    "prompt": lambda problem: problem.prompt,
    "solution": lambda problem: problem.solution,
}
_PLAIN: Mapping[str, Callable[[MicroProblem], str]] = {
    "plain_request": lambda problem: problem.plain_request,
    "plain_solution": lambda problem: problem.plain_solution,
}


class _Maker:
    """Draws problems from pools that are split once."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, held = recipe, recipe.held_out
        choice = random.Random(f"{recipe.seed} pools")
        # held out are names that are put together from known words, and choices of known constants: a model that is
        # trained here from scratch can't write a word that it has never seen
        self._functions = split(FUNCTIONS, held.names, choice)
        self._held_constants: dict[str, frozenset[tuple[str, ...]]] = {}
        self._sentences = {
            1: split(SENTENCES, held.wordings, choice),
            2: split(COMPOSED, held.wordings, choice),
        }
        self._phrases = {operation.name: split(operation.phrases, held.wordings, choice) for operation in OPERATIONS}

    def problems(
        self,
        name: str,
        structures: Sequence[Structure],
        count: int,
        held: Callable[[Structure, random.Random], _Held],
        admits: Callable[[MicroProblem], bool],
    ) -> tuple[MicroProblem, ...]:
        """`count` problems of distinct requests, a structure's turn after another's."""
        choice = random.Random(f"{self._recipe.seed} {name}")
        made: dict[str, MicroProblem] = {}
        turns = choice.sample(structures, len(structures))
        while turns and len(made) < count:
            for structure in list(turns)[: count - len(made)]:
                for _ in range(_PATIENCE):
                    problem = self._draw(structure, held(structure, choice), choice)
                    if problem is not None and problem.request not in made and admits(problem):
                        made[problem.request] = problem
                        break
                else:
                    turns.remove(structure)
                    if structure.name not in {problem.structure for problem in made.values()}:
                        raise ValueError(f"there is no problem of {structure.name} for {name}")
        if len(made) < count:
            raise ValueError(f"there are about {len(made)} distinct problems for {name}, not {count}")
        return tuple(choice.sample(list(made.values()), count))

    def some_held(self, structure: Structure, choice: random.Random) -> _Held:
        """Constants that training hasn't with the structure; without any, names or wordings that it never shows."""
        chance = self._recipe.held_out.drawn
        while True:
            names, wordings = (choice.random() < chance for _ in range(2))
            if structure.slots or names or wordings:
                return _Held(names, wordings, _Constants.HELD if structure.slots else _Constants.ANY)

    def _is_held(self, structure: Structure, constants: tuple[str, ...]) -> bool:
        """Whether training may not have these constants in this structure, though it has each of them."""
        if structure.name not in self._held_constants:
            choice = random.Random(f"{self._recipe.seed} {structure.name}")
            choices = split(list(constants_of(structure.slots)), self._recipe.held_out.constants, choice)
            self._held_constants[structure.name] = frozenset(choices.held)
        return constants in self._held_constants[structure.name]

    def _draw(self, structure: Structure, held: _Held, choice: random.Random) -> MicroProblem | None:
        """A problem; None if its constants don't fit together or aren't wanted."""
        constants = tuple(choice.choice(CONSTANTS[slot]) for slot in structure.slots)
        wanted = held.constants
        if wanted is not _Constants.ANY and self._is_held(structure, constants) != (wanted is _Constants.HELD):
            return None
        examples = _examples(structure, constants, self._recipe.base_inputs, self._recipe.plus_inputs)
        if examples is None:
            return None
        entry_point = self._functions.draw(choice, held.names)
        arguments = _argument_names(structure.takes, choice)
        signature = f"{entry_point}({', '.join(arguments)})"
        first, what = self._said(structure, arguments, constants, held.wordings, choice)
        sentence = self._sentences[len(structure.parts())].draw(choice, held.wordings)
        told = f"Return {what}." if first is None else f"Compute {first}, then return {what}."
        return MicroProblem(
            structure=structure.name,
            request=sentence.format(signature=signature, first=first, what=what),
            entry_point=entry_point,
            arguments=arguments,
            takes=structure.takes,
            prompt=f'def {signature}:\n    """{_quoted(told)}"""\n',
            solution=structure.solution(entry_point, arguments, constants),
            taught=structure.solution(entry_point, arguments, constants, choice.randrange(FORMS)),
            examples=examples,
        )

    def _said(
        self,
        structure: Structure,
        arguments: Sequence[str],
        constants: Sequence[str],
        held: bool,
        choice: random.Random,
    ) -> tuple[str | None, str]:
        """What is done first, if there are two operations, and what is returned."""
        phrases = [self._phrases[operation.name].draw(choice, held) for operation in structure.parts()]
        if structure.inner is None:
            return None, filled(phrases[0], arguments, constants)
        taken = len(structure.inner.slots)
        first = filled(phrases[0], arguments, constants[:taken])
        return first, filled(phrases[1], (RESULT,), constants[taken:])


def _argument_names(takes: Sequence[Kind], choice: random.Random) -> tuple[str, ...]:
    names: list[str] = []
    for kind in takes:
        names.append(choice.choice([name for name in ARGUMENTS[kind] if name not in names]))
    return tuple(names)


def _quoted(text: str) -> str:
    """Text for a docstring."""
    return text.replace('"', "'")


@cache
def _examples(structure: Structure, constants: tuple[str, ...], base: int, plus: int) -> Examples | None:
    pairs = list(zip(structure.slots, constants, strict=True))
    if len(set(pairs)) < len(pairs):
        return None
    of_slot: dict[Slot, list[str]] = {}
    for slot, constant in pairs:
        of_slot.setdefault(slot, []).append(constant)
    solution = structure.solution("f", ("x", "y")[: len(structure.takes)], constants)
    return examples_for(solution, "f", structure.takes, of_slot, base, plus)
