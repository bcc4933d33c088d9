"""A small finished run on disk, in the format that evaluation, training and sampling write, with realistic numbers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from safetensors.numpy import save_file

from reporting.params.compare import CompareParams
from reporting.params.report import ReportParams
from runner.stage import Context
from runner.store import Checkpoints
from stages.compare import STAGE as COMPARE
from stages.compare import CompareStageParams
from stages.compare import run as run_compare
from stages.report import STAGE as REPORT
from stages.report import ReportStageParams
from stages.report import run as run_report
from tests.stages.manifests import write_manifest

DRAWS = 4
JUDGING = {"forwards": 192, "flops": 3.0e12, "tokens": 24576}
LENGTH = 24
NFES = (8, 16, 32)
GEN_PPL = {"base": (16.4, 12.1, 9.9), "binary": (15.3, 11.3, 9.0), "sm": (14.9, 10.6, 7.9)}
COMPARE_PARAMS: dict[str, Any] = {
    "resamples": 500,
    "level": 0.95,
    "seed": 7,
    "min_units": 30,
    "gate_lam": 0.05,
    "nfe_tolerance": 0.02,
    "entropy_margin": 0.05,
    "baseline_sampler": "mdlm",
    "plot_points": 10,
}
NO_CODE: dict[str, Any] = {
    **{name: [] for name in ("families", "seeds", "arms", "sets", "cells", "findings", "models", "points")},
    **{"differences": [], "environments": [], "inputs": {}, "profile": "local"},
    **{"resamples": 500, "level": 0.95, "min_problems": 20, "gate_lam": 0.05},
}
"""The comparison of a run without code models."""
REPORT_PARAMS: dict[str, Any] = {
    "regime": "continuation",
    "samples": 3,
    "sampler": "mdlm",
    "nfe": 16,
    "sample_characters": 400,
    "trace_steps": 6,
    "trace_guesses": 3,
    "trace_snapshots": 4,
}


LOCKS = {"requirements.lock": "torch==2.13.0\n", "requirements-cuda.lock": "torch==2.13.0+cu130\n"}


@dataclass
class Run:
    """What the fixture's models are like."""

    root: Path
    arms: Sequence[str] = ("binary", "sm_iso_update")
    seeds: Sequence[int] = (1, 2)
    profile: str = "local"
    gain: Mapping[int, float] = field(default_factory=lambda: {1: 0.024, 2: 0.026})
    """NLL of the binary arm minus NLL of the soft-masked arms' two-pass path, nats a token, by seed."""
    lam_mean: float = 0.31
    feedback_effect: float = 0.035
    """NLL on one pass minus NLL on two, of the soft-masked arms."""
    units: int = 41
    unit_kind: str = "documents"
    text: str = "import sympy\n"
    mauve: bool = False
    units_seed: int = 0
    locks: Mapping[str, str] = field(default_factory=lambda: LOCKS)
    """Environment locks: file -> text."""

    def write(self) -> "Run":
        """Write every file that compare and report read; the current folder must be `root`."""
        for name, text in self.locks.items():
            (self.root / name).write_text(text, encoding="utf-8")
        self._json("data/check/valid.json", {"params": "valid"})
        self.write_model("base", None)
        for arm in self.arms:
            for seed in self.seeds:
                self.write_model(arm, seed)
        row = self.generation_row(None, None, 3.5, 2.72)
        judge = {"ppl": 3.5, "nll": float(np.log(3.5)), "tokens": 30000}
        self._json("data/references/metrics.json", {"model": "real text", "generation_row": row, "judge": judge})
        judge_counts = {
            "parameters": 800000,
            "updates": 300,
            "forwards": 300,
            "backwards": 300,
            "flops": 9e13,
            "tokens": 10**6,
        }
        write_manifest("models/judge", judge_counts)
        write_manifest("data/references", {"references": 500, "judging": JUDGING})
        self._json("models/judge/history.json", [{"step": s, "loss": 4 / (1 + s / 50)} for s in range(0, 300, 10)])
        self._json("reports/code_comparison.json", NO_CODE)
        return self

    def write_model(self, arm: str, seed: int | None) -> None:
        """Evaluation, history and samples of one model."""
        name = arm if seed is None else f"{arm}-{seed}"
        soft = arm.startswith("sm")
        perplexity = self._write_nll(name, arm, seed)
        kind = "sm" if soft else arm
        omegas = {"omega_s": 0.71, "omega_a": 1.8, "omega_b": -2.6, "temperature": None}
        gate = {
            "lam_mean": self.lam_mean,
            "lam_std": 0.1,
            "by_entropy": [
                {"below": 0.5, "share": 0.3, "lam_mean": 0.44},
                {"below": 1.5, "share": 0.3, "lam_mean": 0.3},
            ],
            "omegas": omegas,
            "initial_omegas": {"omega_s": 0.5, "omega_a": 3.0, "omega_b": -1.5, "temperature": None},
        }
        shift = 0.0 if seed is None else 0.01 * seed
        noise = np.random.default_rng(sum(name.encode()))
        samplers = ("mdlm", "mdlm_two_pass") if soft else ("mdlm",)
        generation = [
            self.generation_row(
                sampler,
                nfe,
                ppl * (1 + shift + 0.01 * noise.normal()),
                2.7 + shift * noise.normal(),
                1 + ("two" in sampler),
            )
            for sampler in samplers
            for nfe, ppl in zip(NFES, GEN_PPL[kind], strict=True)
        ]
        metrics = {
            "model": name,
            "arm": None if seed is None else arm,
            "seed": seed,
            "perplexity": perplexity,
            "evaluated": {"tokens": 1, "bytes": 1, "draws": DRAWS, "documents": self.units},
            "gate": gate if soft else None,
            "generation": generation,
            "training": {
                "updates": 400,
                "forwards": 720 if soft else 400,
                "backwards": 400,
                "flops": 1.2e15,
                "tokens": 1638400,
            },
            "evaluation_cost": {"forwards": 4000, "flops": 2.1e13, "tokens": 131072, "judge": JUDGING},
        }
        self._json(f"data/evaluation/{name}/metrics.json", metrics)
        write_manifest(f"data/evaluation/{name}", {})
        self._json(f"models/mdlm/{name}/history.json", self._history(soft))
        self._write_samples(name, soft)

    def generation_row(
        self, sampler: str | None, nfe: int | None, gen_ppl: float, entropy: float, passes: int = 1
    ) -> dict[str, Any]:
        """One row of generation metrics; a sixth of the steps changes nothing and costs no pass."""
        mauve = {"mean": 0.5, "std": 0.02, "seeds": {"1": 0.49, "2": 0.51}, "references": 500}
        return {
            "sampler": sampler,
            "nfe": nfe,
            "real_nfe_mean": None if nfe is None else passes * (nfe * 0.94 + 1),
            "samples": 64,
            "tokens": 64 * LENGTH,
            "gen_ppl": gen_ppl,
            "entropy": entropy,
            "mauve": mauve if self.mauve else None,
            "mauve_note": None if self.mauve else "64 samples; MAUVE is printed from 500 on",
        }

    def _write_nll(self, name: str, arm: str, seed: int | None) -> dict[str, Any]:
        shared = np.random.default_rng(self.units_seed)
        tokens = shared.integers(200, 1200, self.units)
        difficulty = shared.normal(1.62, 0.25, self.units)
        masks = shared.normal(0, 0.01, (DRAWS, self.units))
        own = np.random.default_rng(sum(name.encode()))
        level = {"base": 0.045}.get(arm, 0.0) - (self.gain.get(seed or 0, 0.0) if arm.startswith("sm") else 0.0)
        two_pass = tokens * (difficulty + masks + level + own.normal(0, 0.004, (DRAWS, self.units)))
        arrays: dict[str, np.ndarray] = {"tokens": tokens.astype(np.int64), "bytes": tokens.astype(np.int64)}
        if arm.startswith("sm"):
            arrays["two_pass"] = two_pass
            arrays["binary"] = two_pass + tokens * (self.feedback_effect + own.normal(0, 0.004, (DRAWS, self.units)))
        else:
            arrays["binary"] = two_pass
        file = self.root / f"data/evaluation/{name}/nll.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, file, metadata={"unit_kind": self.unit_kind})
        return {
            path: self._summary(arrays[path], tokens) if path in arrays else None for path in ("binary", "two_pass")
        }

    @staticmethod
    def _summary(nll: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
        mean = float(nll.mean(axis=0).sum() / tokens.sum())
        return {
            "nll": mean,
            "ppl": float(np.exp(mean)),
            "bits_per_byte": mean / float(np.log(2)),
            "monte_carlo_se": 0.002,
        }

    @staticmethod
    def _history(soft: bool) -> list[dict[str, Any]]:
        records = []
        for step in range(0, 400, 10):
            record = {"step": step, "loss": 1.6 + 1 / (1 + step / 40), "grad_norm": 0.5, "learning_rate": 2e-3}
            if soft:
                record |= {"omega_s": 0.5 + step / 2000, "omega_a": 3 - step / 400, "omega_b": -1.5 - step / 400}
                record |= {"lam_mean": 0.2 + step / 4000, "lam_std": 0.1, "lam_confident": 0.4, "lam_unsure": 0.1}
            records.append(record)
        return records

    def _write_samples(self, name: str, soft: bool) -> None:
        rows = [
            {
                "sampler": "mdlm",
                "nfe": nfe,
                "index": i,
                "real_nfe": nfe,
                "text": f"{self.text}# {name} {nfe} {i}\n",
                "ids": [1, 2],
            }
            for nfe in NFES
            for i in range(4)
        ]
        file = self.root / f"data/samples/{name}/samples.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        write_manifest(f"data/samples/{name}", {"samples": 12, "forwards": 700, "flops": 4e12})
        self._json(f"data/samples/{name}/trace.json", self._trace(name, soft))

    @staticmethod
    def _trace(name: str, soft: bool) -> dict[str, Any]:
        text = "def expand(expr):\n    re"[:LENGTH]
        order = np.random.default_rng(len(name)).permutation(LENGTH)
        tokens: list[str | None] = [None] * LENGTH
        steps = []
        for step in range(12):
            unmasked = sorted(int(i) for i in order[2 * step : 2 * step + 2])
            for position in unmasked:
                tokens[position] = text[position]
            guess = [
                {"position": i, "lam": 0.05 + 0.03 * step, "guesses": [[text[i], 0.7], ["e", 0.2], ["<", 0.1]]}
                for i, token in enumerate(tokens)
                if token is None
            ]
            steps.append(
                {"t": 1 - step / 12, "tokens": list(tokens), "unmasked": unmasked, "feedback": guess if soft else []}
            )
        return {"model": name, "sampler": "mdlm", "nfe": 12, "length": LENGTH, "steps": steps}

    def _json(self, path: str, value: Any) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")

    def compare(self, **changes: Any) -> dict[str, Any]:
        """Run the stage's work here (the current folder must be `root`); returns comparison.json."""
        params = CompareStageParams(
            profile=self.profile,
            seeds=list(self.seeds),
            arms=list(self.arms),
            compare=CompareParams(**{**COMPARE_PARAMS, **changes}),
        )
        run_compare(self._context(params, COMPARE))
        comparison: dict[str, Any] = json.loads((self.root / "reports/comparison.json").read_text(encoding="utf-8"))
        return comparison

    def report(self, **changes: Any) -> tuple[str, str]:
        """Run the report's work here, after `compare`; returns its HTML and its Markdown."""
        params = ReportStageParams(
            seeds=list(self.seeds),
            arms=list(self.arms),
            report=ReportParams.model_validate_json(json.dumps({**REPORT_PARAMS, **changes})),
        )
        run_report(self._context(params, REPORT))
        folder = self.root / "reports"
        return (folder / "report.html").read_text(encoding="utf-8"), (folder / "report.md").read_text(encoding="utf-8")

    def _context(self, params: Any, stage: Any) -> Context[Any]:
        inputs = {name: Path(path) for name, path in stage.inputs.items()}
        outputs = {name: Path(path) for name, path in stage.outputs.items()}
        return Context(params, inputs, outputs, {}, Checkpoints(self.root / ".checkpoints", "test"))


class MakeRun(Protocol):
    """Writes a finished run into the current folder."""

    def __call__(self, **changes: Any) -> Run: ...


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """A factory of finished runs; the current folder is the run's root."""
    monkeypatch.chdir(tmp_path)
    return lambda **changes: Run(tmp_path, **changes).write()


@pytest.fixture(scope="session")
def new_run() -> Callable[[Path], Run]:
    """Writes the default run into a folder."""
    return lambda root: Run(root).write()


@pytest.fixture
def compare_params() -> dict[str, Any]:
    """The `compare` section of the fixture's params.yaml."""
    return dict(COMPARE_PARAMS)
