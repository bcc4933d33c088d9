"""The flow `retrain`: new documents, a candidate that learns from them too, the decision, and a promotion or none.

All of it happens in checkouts of their own (`pipelines/checkout.py`). The repository gets a branch for each candidate,
and for each promotion tags on that branch; its working tree and its own branches stay as they are.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from prefect import flow, get_client, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed

from artifacts.files import read_json, write_json
from commands.retraining import Decision, Snapshot, quarantine_entries
from pipelines.attested import attested
from pipelines.checkout import PLACE, Checkout, branch, read, tip
from pipelines.children import Children
from pipelines.flows import only_flow, told
from pipelines.registry import Version, champion, promote, was_in_use
from pipelines.reproduce import attempted, on_a_worker, reproduce
from pipelines.resources import check_limits
from reporting.schema import Record
from runner.section import lookup, read_yaml
from runner.stage import PARAMS_FILE, StageParams
from softmask.errors import InputError, Unavailable
from stages.params.orchestration import OrchestrationParams
from stages.params.retrain import IncomingSource, RetrainParams

LOCK = Path(".dvc/tmp/retrain.lock")
SNAPSHOTS = Path("data/snapshots")
REPORT, QUARANTINE = Path("reports/retrain.json"), Path("reports/quarantine.jsonl")
"""On a candidate's branch: what was decided, and which records were not trained on."""
TOKENIZER = "tokenizer"
COMPARABLE = (TOKENIZER, "retrain.arm", "retrain.seed")
"""What candidate and champion must have the same in params.yaml."""
SHOWN = 20
"""Quarantined records in the table of a run; the file has all of them."""


class Params(StageParams):
    """What the flow reads of params.yaml."""

    orchestration: OrchestrationParams
    retrain: RetrainParams


class Outcome(StrEnum):
    """How a retrain ended."""

    FIRST = "there was no champion: this is the first"
    NOTHING_NEW = "no new documents: nothing was trained"
    TRIED = "these documents were tried before, in the same way: the champion stays"
    PROMOTED = "the candidate is better: it is the champion now"
    KEPT = "the candidate is not better: the champion stays"


class Report(Record):
    """What is on a candidate's branch, in `reports/retrain.json`."""

    revision: str
    """The commit that code and params are from."""
    champion: str | None
    """The version that was in use."""
    snapshot: Snapshot | None
    decision: Decision | None
    """None for the first champion, which there was nothing to compare with."""

    @property
    def documents(self) -> str:
        """Name of the folder of new documents."""
        assert self.snapshot is not None
        return f"{self.champion}-{self.snapshot.documents_md5[:12]}"


@flow(name="retrain", persist_result=False)
@told
def retrain(workspace: str = ".") -> State[None]:
    """Train on what is new, by code and params of the last commit, and put the model into use if it is better.

    Without a champion the last commit's model becomes it. Without new documents the run ends at once. While another is
    at work in the repository, a slow night's say, it is cancelled.

    Args:
        workspace: folder of the repository, whose `retrain` in params.yaml says what is done.

    Raises:
        InputError: params, the registry or the data are wrong.
        StageFailed: a stage, the snapshot or the decision failed.
    """
    home = Path(workspace).resolve()
    with ExitStack() as held:
        try:
            held.enter_context(only_flow(home / LOCK))
        except Unavailable as other:
            cancelled: State[None] = Cancelled(message=str(other))
            return cancelled
        children = Children(str(home / PLACE / "candidate"), None)
        children.cancel_strays()  # before the folder that they work in is made anew
        try:
            outcome = Retrain.begin(home, children).run()
        except BaseException:
            children.cancel()
            raise
    return Completed(message=outcome.value)


@dataclass(frozen=True)
class Retrain:
    """One run of it."""

    candidate: Checkout
    params: Params
    children: Children

    @classmethod
    def begin(cls, home: Path, children: Children) -> "Retrain":
        """Check the last commit out, and see that what it asks for is there."""
        candidate = Checkout(home, "candidate", "HEAD")
        get_run_logger().info("code and params are those of %s; what isn't committed has no part", candidate.revision)
        params = Params.read({}, candidate.root / PARAMS_FILE)
        with get_client(sync_client=True) as client:
            check_limits(client, params.orchestration, ["snapshot", "promotion"])
        return cls(candidate, params, children)

    @property
    def home(self) -> Path:
        """The user's repository."""
        return self.candidate.home

    @property
    def stage(self) -> str:
        """DVC's name of the stage that trains the model."""
        return f"arm@{self.params.retrain.arm}-{self.params.retrain.seed}"

    def run(self) -> Outcome:
        """From the champion that is there to the one that will be."""
        old = champion(self.home)
        if old is None:
            return self._first()
        current = Checkout(self.home, "champion", old.commit)
        self._check_comparable(current)
        current.fetch(["corpus", TOKENIZER, "tokens", self.stage])
        taken = self.home / PLACE / "snapshot"
        snapshot = self._snapshot(current, taken)
        found = self._report(old, snapshot)
        if not snapshot.accepted.documents:
            return self._tell(Outcome.NOTHING_NEW, old, None, found, taken)
        # another recipe may do better with the same documents
        name = f"{found.documents}-{self.candidate.revision[:12]}"
        outcome = Outcome.TRIED
        commit = tip(self.home, name)
        if commit is None:
            self._train(current, taken, found.documents)
            commit = self._save(name, self._report(old, snapshot, self._decide(current)), taken)
            outcome = Outcome.KEPT
        report = Report.model_validate_json(read(self.home, commit, REPORT))
        assert report.decision is not None
        # an earlier run may have been stopped just before the promotion; or somebody has taken the model out of use
        if not report.decision.promoted or was_in_use(self.home, commit):
            return self._tell(outcome, old, name, report, taken)
        new = self._promote(name, commit, "; ".join(report.decision.reasons))
        return self._tell(Outcome.PROMOTED, new, name, report, taken)

    def _first(self) -> Outcome:
        reproduce([self.stage], str(self.candidate.root))
        name, report = f"first-{self.candidate.revision[:12]}", self._report(None, None)
        new = self._promote(name, self._save(name, report, None), Outcome.FIRST)
        return self._tell(Outcome.FIRST, new, name, report, None)

    def _promote(self, name: str, commit: str, why: str) -> Version:
        """Put a candidate into use, with a signed statement of where it came from on its branch."""
        return promote(self.home, attested(self.home, name, commit, self.stage), why)

    def _check_comparable(self, current: Checkout) -> None:
        ours, theirs = (read_yaml(one.root / PARAMS_FILE) for one in (self.candidate, current))
        for key in COMPARABLE:
            if lookup(ours, key, str(PARAMS_FILE)) != lookup(theirs, key, f"{PARAMS_FILE} of {current.revision}"):
                raise InputError(
                    "it differs from the champion's, so that the models can't be compared",
                    where=f"{PARAMS_FILE}: {key}",
                    expected=f"that of {current.revision}",
                    todo="Change it back and commit; or take the champion out of use first, as the README says",
                )

    def _snapshot(self, current: Checkout, out: Path) -> Snapshot:
        incoming = self.params.retrain.incoming
        given = ["--incoming", str(self.home / incoming.folder)] if incoming.source is IncomingSource.FOLDER else []
        self._command("snapshot", ["--champion", str(current.root), "--out", str(out), *given])
        return Snapshot.model_validate(read_json(out / "snapshot.json"))

    def _train(self, current: Checkout, taken: Path, name: str) -> None:
        """Make the candidate: the champion's data and tokenizer, and the new documents."""
        self.candidate.take(current, SNAPSHOTS, TOKENIZER)
        documents = self.candidate.root / SNAPSHOTS / name
        shutil.copytree(taken / "documents", documents)
        self.candidate.add(documents)
        reproduce([self.stage], str(self.candidate.root))

    def _decide(self, current: Checkout) -> Decision:
        out, retrain = self.home / PLACE / "decision.json", self.params.retrain
        models = ["--champion", str(current.root), "--candidate", ".", "--arm", retrain.arm]
        self._command("promotion", [*models, "--seed", str(retrain.seed), "--out", str(out)])
        return Decision.model_validate(read_json(out))

    def _command(self, name: str, arguments: Sequence[str]) -> None:
        """Run one of commands/ in the candidate's checkout, on a worker, with what it asks for."""
        asked, start = self.params.orchestration.of(name), partial(self.children.command, name, arguments)
        task = attempted(self.params.orchestration, on_a_worker).with_options(name=name, task_run_name=name)
        task(name, asked, self.children.stopped, start)

    def _report(self, old: Version | None, snapshot: Snapshot | None, decision: Decision | None = None) -> Report:
        champion = None if old is None else old.name
        return Report(revision=self.candidate.revision, champion=champion, snapshot=snapshot, decision=decision)

    def _save(self, name: str, report: Report, taken: Path | None) -> str:
        """Keep the candidate, whatever became of it; the commit."""
        root = self.candidate.root
        write_json(root / REPORT, report.model_dump(mode="json"))
        files = [str(REPORT)]
        if taken is not None:
            shutil.copy(taken / QUARANTINE.name, root / QUARANTINE)
            files += [str(QUARANTINE), f"{SNAPSHOTS / report.documents}.dvc"]
        return self.candidate.save(name, files, f"retrain: {name}")

    def _tell(self, outcome: Outcome, now: Version, name: str | None, report: Report, taken: Path | None) -> Outcome:
        """Leave a table of what was found and decided."""
        rows = {"outcome": outcome.value, "champion": now.name, "champion before": report.champion or "none"}
        if name is not None:
            rows["branch of the candidate"] = branch(name)
        found = [*rows.items(), *_of_snapshot(report.snapshot, taken), *_of_decision(report.decision)]
        create_table_artifact(
            table=[{"what": what, "found": text} for what, text in found],
            key="retrain",
            description=f"{outcome.value} (commit {report.revision[:12]})",
        )
        for what, text in found:
            get_run_logger().info("%s: %s", what, text)
        return outcome


def _of_snapshot(snapshot: Snapshot | None, taken: Path | None) -> Iterator[tuple[str, str]]:
    if snapshot is None or taken is None:
        return
    yield "new documents", f"{snapshot.accepted.documents} of {snapshot.records} records, from {snapshot.source}"
    for repeat, count in snapshot.dropped.items():
        if count:
            yield f"dropped: {repeat}", str(count)
    if snapshot.quarantined.count:
        yield "in quarantine", f"{snapshot.quarantined.count}, see {taken / QUARANTINE.name}"
        yield from quarantine_entries(taken / QUARANTINE.name, SHOWN)


def _of_decision(decision: Decision | None) -> Iterator[tuple[str, str]]:
    if decision is None:
        return
    for metric, value in decision.metrics.items():
        models = f"champion {value.champion:.4f}, candidate {value.candidate:.4f} nats a token"
        yield metric, f"{models}; improvement {value.improvement:+.4f} ({value.low:+.4f} to {value.high:+.4f})"
    for number, reason in enumerate(decision.reasons, start=1):
        yield f"reason {number}", reason
