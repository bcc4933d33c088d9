"""A small finished code study on disk, in the format that scoring, generation and finetuning write."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reporting.params.code_compare import CodeCompareParams
from runner.stage import Context
from runner.store import Checkpoints
from stages.code_compare import STAGE, CodeCompareStageParams, run
from stages.params.code.generation import CellParams
from tests.stages.manifests import write_manifest

COMPARE_PARAMS: dict[str, Any] = {
    "resamples": 500,
    "level": 0.95,
    "seed": 7,
    "min_problems": 20,
    "gate_lam": 0.05,
    "empty_share": 0.05,
    "plot_points": 10,
    "listed": 3,
    "answer_characters": 400,
}
STEPS = {"1/4": 8, "1/2": 16, "1/1": 32}
SHARE = {"1/4": 0.3, "1/2": 0.5, "1/1": 0.65}
"""Share of problems that the binary arm solves."""
Passes = Callable[[str, str, int | None, str, np.ndarray], np.ndarray]
"""(set, arm, seed, cell, difficulty `[U]` in (0, 1)) -> bool `[U]`."""


def cell(name: str, **changes: Any) -> dict[str, Any]:
    """A cell of params."""
    empty = dict.fromkeys(("nfe_ratio", "tokens_per_step", "threshold", "block_length", "refresh_every", "sets"))
    ratio = {} if "threshold" in changes or "tokens_per_step" in changes else {"nfe_ratio": name}
    return {"name": name, "cache": "none", **empty, **ratio, **changes}


CELLS = (
    cell("1/4"),
    cell("1/2"),
    cell("1/1"),
    cell("1/2 dual", nfe_ratio="1/2", cache="dual", block_length=8, sets=["micro_iid"]),
)


@dataclass
class CodeRun:
    """What the fixture's models are like."""

    root: Path
    families: Sequence[str] = ("dream",)
    arms: Sequence[str] = ("binary", "sm")
    seeds: Sequence[int] = (1, 2)
    sets: Mapping[str, int] = field(default_factory=lambda: {"micro_iid": 60, "micro_new": 40, "arithmetic": 30})
    cells: Sequence[Mapping[str, Any]] = CELLS
    profile: str = "local"
    gain: Mapping[int, float] = field(default_factory=lambda: {1: 0.15, 2: 0.2})
    """Share of problems that the soft-masked arms solve beyond the binary one's, by seed."""
    passes: Passes | None = None
    """Replaces the rule that a model solves the problems that are easy enough for it."""
    lam_mean: float = 0.31
    empty: float = 0.02
    text: str = ""
    """Put before every answer."""
    request: str = "Write task"
    """How every problem's request begins."""
    nearest: bool = True

    def write(self) -> "CodeRun":
        """Write every file that code_compare reads."""
        self._json("data/check/valid.json", {"params": "valid"})
        for name, count in self.sets.items():
            rows = [{"set": name, "task_id": f"{name}/{i}", "request": f"{self.request} {i}."} for i in range(count)]
            self._lines(f"data/code/problems/{name}.jsonl", rows)
        for family in self.families:
            self.write_model(family, "base", None)
            for arm in self.arms:
                for seed in self.seeds:
                    self.write_model(family, arm, seed)
        named = [name for name in self.sets if name.startswith("micro")] if self.nearest else []
        self._scores("nearest", "train", "nearest", None, [(name, "nearest") for name in named])
        return self

    def write_model(self, family: str, arm: str, seed: int | None) -> None:
        """Scores, costs and history of one model."""
        model = arm if seed is None else f"{arm}-{seed}"
        places = [(name, c["name"]) for name in self.sets for c in self.cells if c["sets"] is None or name in c["sets"]]
        self._scores(family, model, arm, seed, places)
        costs = [self._cost(name, cell_name) for name, cell_name in places]
        self._json(f"data/code/samples/{family}/{model}/costs.json", {"family": family, "model": model, "cells": costs})
        write_manifest(f"data/code/samples/{family}/{model}", {})
        self._json(f"models/dream/{family}/{model}/history.json", self._history(arm))
        training = {"updates": 50, "forwards": 90 if arm.startswith("sm") else 50, "backwards": 50, "flops": 10**12}
        self._json(f"models/dream/{family}/{model}/costs.json", training)

    def outcomes(self, name: str, arm: str, seed: int | None, cell_name: str) -> np.ndarray:
        """bool `[U]`: what a model solves."""
        ranks = np.random.default_rng(sum(name.encode())).permutation(self.sets[name])
        difficulty = (ranks + 0.5) / self.sets[name]
        if self.passes is not None:
            return self.passes(name, arm, seed, cell_name, difficulty)
        share = 0.2 if arm == "nearest" else SHARE[cell_name.split()[0]]
        share -= 0.05 if "dual" in cell_name else 0.0
        share += {"base": -0.1}.get(arm, self.gain.get(seed or 0, 0.0) if arm.startswith("sm") else 0.0)
        return difficulty < share

    def compare(self, **changes: Any) -> dict[str, Any]:
        """Run the stage's work here (the current folder must be `root`); returns code_comparison.json."""
        params = CodeCompareStageParams(
            profile=self.profile,
            families=list(self.families),
            seeds=list(self.seeds),
            arms=list(self.arms),
            sets=list(self.sets),
            cells=[CellParams.model_validate_json(json.dumps(values)) for values in self.cells],
            compare=CodeCompareParams(**{**COMPARE_PARAMS, **changes}),
        )
        run(self._context(params))
        found: dict[str, Any] = json.loads((self.root / "reports/code_comparison.json").read_text(encoding="utf-8"))
        return found

    def _context(self, params: Any) -> Context[Any]:
        inputs = {name: Path(path) for name, path in STAGE.inputs.items()}
        outputs = {name: Path(path) for name, path in STAGE.outputs.items()}
        return Context(params, inputs, outputs, {}, Checkpoints(self.root / ".checkpoints", "test"))

    def _scores(self, family: str, model: str, arm: str, seed: int | None, places: Sequence[tuple[str, str]]) -> None:
        rows, cells = [], []
        for name, cell_name in places:
            solved = self.outcomes(name, arm, seed, cell_name)
            plus = name.startswith("micro") or name.endswith("plus")
            rows += [
                {
                    "set": name,
                    "task_id": f"{name}/{i}",
                    "cell": cell_name,
                    "solution": f"{self.text}def f{i}(x):\n    return {model!r}\n",
                    "base": "pass" if ok or (plus and i % 2) else "fail",
                    "plus": ("pass" if ok else "error") if plus else None,
                    "detail": "",
                }
                for i, ok in enumerate(solved.tolist())
            ]
            own = rows[-len(solved) :]
            passed = [row["base"] == "pass" for row in own]
            cells.append(
                {
                    "set": name,
                    "cell": cell_name,
                    "problems": len(own),
                    "pass_base": float(np.mean(passed)),
                    "pass_plus": float(np.mean(solved)) if plus else None,
                    "empty_share": self.empty,
                    "forwards_mean": 0.0 if arm == "nearest" else STEPS[cell_name.split()[0]] * 0.9,
                    "positions_mean": 0.0 if arm == "nearest" else _positions(cell_name),
                    "tokens_mean": 21.5,
                }
            )
        self._lines(f"data/code/scores/{family}/{model}/verdicts.jsonl", rows)
        named = None if arm in ("base", "nearest") else arm
        metrics = {"family": family, "model": model, "arm": named, "seed": seed, "cells": cells}
        self._json(f"data/code/scores/{family}/{model}/metrics.json", metrics)

    def _cost(self, name: str, cell_name: str) -> dict[str, Any]:
        problems, steps = self.sets[name], STEPS[cell_name.split()[0]]
        positions = problems * _positions(cell_name)
        totals = {"forwards": problems * steps, "positions": positions, "head_rows": problems * steps}
        return {"set": name, "cell": cell_name, "problems": problems, **totals, "flops": positions * 10**6}

    def _history(self, arm: str) -> list[dict[str, Any]]:
        """As the trainer logs it: losses, and measurements at the start and at every 20th step, the best at step 40."""
        if arm == "base":
            return []
        records: list[dict[str, Any]] = [{"step": step, "loss": 1 + 1 / (1 + step)} for step in range(5, 65, 5)]
        for step in range(0, 80, 20):
            record: dict[str, Any] = {"step": step, "eval_loss": 1.5 + abs(step - 40) / 100}
            if arm.startswith("sm"):
                record |= {"omega_s": 0.5 + step / 200, "omega_a": 3 - step / 400, "omega_b": -1.5 - step / 400}
                record |= {"lam_mean": self.lam_mean if step == 40 else 0.5, "lam_std": 0.1, "temperature": 1.0}
                record["eval_loss_binary"] = record["eval_loss"] + 0.125
            records.append(record)
        return sorted(records, key=lambda record: int(record["step"]))

    def _json(self, path: str, value: Any) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")

    def _lines(self, path: str, rows: Sequence[Mapping[str, Any]]) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _positions(cell_name: str) -> int:
    """Positions computed for a problem: the whole sequence at every step, or with a cache a third of it."""
    return STEPS[cell_name.split()[0]] * (20 if "dual" in cell_name else 60)
