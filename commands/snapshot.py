"""Take in new documents for a retrain: `python -m commands.snapshot --champion DIR --out DIR [--incoming DIR]`.

A command, no stage of the pipeline: a retrain runs it. What is wrong with a record is written to `quarantine.jsonl`;
what the champion's corpus or the snapshot itself has already is dropped and counted. The rest goes to `documents/`,
whose bytes depend on the set of documents alone. `snapshot.json` is written last. Memory: one record, the digests,
where each document is, and the index of the champion's validation.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from artifacts.files import fresh_folder, write_json
from artifacts.hashing import path_hash
from commands.retraining import Accepted, Quarantined, Repeat, Snapshot, quarantine_entries
from runner.stage import StageParams, run_command
from softmask.errors import InputError
from stages import corpus
from stages.params.corpus import CorpusParams, Drop, DuplicatesParams
from stages.params.retrain import IncomingHubParams, IncomingParams, IncomingSource, RetrainParams, SnapshotParams
from stages.sources.documents import read_documents
from stages.sources.duplicates import NearDuplicates, digest, normalise
from stages.sources.fetched import fetched
from stages.sources.files import read_texts

QUARANTINE, DOCUMENTS, SNAPSHOT = "quarantine.jsonl", "documents", "snapshot.json"
MADE = {QUARANTINE, DOCUMENTS, SNAPSHOT, f".{SNAPSHOT}.draft"}
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
SHOWN = 5
WHERE = "params.yaml: retrain.incoming"


class Params(StageParams):
    """What is taken depends on the corpus's text field and its rule for duplicates, and on `retrain.snapshot`."""

    corpus: CorpusParams
    retrain: RetrainParams


@dataclass
class ChampionText:
    """What the champion's corpus has, as far as new documents are compared with it."""

    near: NearDuplicates | None
    """Of validation; None where corpus.duplicates.drop asks for no near duplicates."""
    validation: set[bytes] = field(default_factory=set)
    train: set[bytes] = field(default_factory=set)

    @classmethod
    def of(cls, folders: Mapping[str, Path], params: DuplicatesParams) -> "ChampionText":
        """Read the corpus in these folders.

        Raises:
            InputError: a shard can't be read.
        """
        text = cls(NearDuplicates(params) if params.drop is Drop.EXACT_AND_NEAR else None)
        for side, digests in (("validation", text.validation), ("train", text.train)):
            documents = read_documents(folders[side])
            for document in tqdm(documents, desc=f"indexing the champion's {side}", unit="doc", unit_scale=True):
                normalised = normalise(document.text)
                digests.add(digest(normalised))
                if side == "validation" and text.near:
                    text.near.add(normalised)
        return text


class Place(NamedTuple):
    """Where an accepted document's line is in the draft."""

    offset: int
    size: int
    characters: int


class Draft:
    """The accepted documents' lines in a file of their own, in the order of reading."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[bytes, Place] = {}

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._places

    def add(self, identity: bytes, line: bytes, characters: int) -> None:
        """Keep a document. Of several with one identity the smallest line stays, whichever was read first."""
        if identity in self and self._line(self._places[identity]) <= line:
            return
        self._places[identity] = Place(self._file.seek(0, os.SEEK_END), len(line), characters)
        self._file.write(line)

    def write(self, folder: Path) -> Accepted:
        """Write the documents into a folder, sorted by identity; without any it stays empty."""
        if self._places:
            with (folder / "documents.jsonl").open("wb") as file:
                file.writelines(self._line(self._places[identity]) for identity in sorted(self._places))
        characters = sum(place.characters for place in self._places.values())
        return Accepted(documents=len(self._places), characters=characters)

    def _line(self, place: Place) -> bytes:
        self._file.seek(place.offset)
        return self._file.read(place.size)


def main(
    champion: Annotated[Path, typer.Option(help="Root of the checkout with the model that is in use.")],
    out: Annotated[Path, typer.Option(help="Folder for the snapshot; it is made anew.")],
    incoming: Annotated[
        Path | None,
        typer.Option(help="Folder with the new .txt, .jsonl and .parquet files; else retrain.incoming of params.yaml."),
    ] = None,
) -> None:
    """Take in new documents; exit code 0 also when there is none to take."""
    snapshot = take(champion, out, incoming)
    console = Console()
    console.print(table(snapshot))
    if snapshot.quarantined.count:
        console.print(f"In quarantine, see {out / QUARANTINE}:", highlight=False, markup=False, soft_wrap=True)
        for place, reason in quarantine_entries(out / QUARANTINE, SHOWN):
            console.print(f"- {place}: {reason}", highlight=False, markup=False, soft_wrap=True)


def take(champion: Path, out: Path, incoming: Path | None = None) -> Snapshot:
    """Make the snapshot of new documents.

    Args:
        champion: root of the champion's checkout; its corpus is what new documents are compared with.
        out: made anew.
        incoming: their folder; None for `retrain.incoming` of params.yaml.

    Raises:
        Unavailable: the hub's dataset can't be fetched.
        InputError: a folder or the champion's corpus is missing or can't be read, `out` holds or is in what is read,
            or can't be written, or params.yaml is wrong.
    """
    params = Params.read({})
    if not champion.is_dir():
        raise InputError(f"there is no folder {champion}", where="--champion", expected="a folder")
    folder, source = _incoming(params.retrain.incoming, incoming)
    corpora = {side: champion / corpus.STAGE.outputs[side] for side in ("train", "validation")}
    for path in corpora.values():
        if not any(path.glob("*.parquet")):
            raise InputError("the champion's corpus is missing", where=str(path), todo="Make it there first: dvc repro")
    _check_out(out, champion, [folder, *corpora.values()])
    files = incoming_files(folder)
    known = ChampionText.of(corpora, params.corpus.duplicates) if files else ChampionText(None)
    with _writing(out):
        snapshot = collect(source, files, known, params, fresh_folder(out))
    write_json(out / SNAPSHOT, snapshot.model_dump(mode="json"))
    return snapshot


def _incoming(params: IncomingParams, given: Path | None) -> tuple[Path, str]:
    """The folder with the new documents, and where they come from."""
    if given is None and params.source is IncomingSource.HUB:
        return _fetched(params.hub)
    folder, where = (given, "--incoming") if given else (Path(params.folder), WHERE + ".folder")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", where=where, expected="a folder")
    return folder, IncomingSource.FOLDER.value


def _fetched(params: IncomingHubParams) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download  # only this source needs it

    folder = fetched(
        partial(
            snapshot_download,
            params.path,
            repo_type="dataset",
            revision=params.revision,
            allow_patterns=list(params.files),
        ),
        name=f"{params.path} at {params.revision}",
        where=WHERE + ".hub",
        todo="Check path and revision, and that the hub can be reached",
    )
    return folder, f"{params.path}@{folder.name}"


def _check_out(out: Path, champion: Path, read: list[Path]) -> None:
    """Refuse to put something else's place, or a part of what is read, in danger."""
    where, place = "--out", out.resolve()
    for folder in (champion, *read):
        source = folder.resolve()
        if source.is_relative_to(place) or (folder in read and place.is_relative_to(source)):
            raise InputError(f"{out} overlaps {folder}, which is read", where=where, expected="a folder beside it")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out} is no folder", where=where, expected="a folder")
    foreign = sorted({path.name for path in out.iterdir()} - MADE) if out.exists() else []
    if foreign:
        what = f"{out} has {foreign[0]!r}, which would be lost"
        raise InputError(what, where=where, expected="an empty folder or an earlier snapshot")


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"can't be written ({error.strerror})"
        raise InputError(what, where=str(out), todo="Mend that, then run again") from None


def incoming_files(incoming: Path) -> dict[str, Path]:
    """Name (the path within `incoming`) -> path, sorted, of all files at any depth that are not hidden.

    Folders that are links, and those that can't be opened, are there like files, so that reading them is an error.

    Raises:
        InputError: `incoming` itself can't be opened.
    """
    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        found.append(Path(error.filename))
        if found[-1] == incoming:
            raise InputError(f"can't be read ({error.strerror})", where=str(incoming)) from None

    for root, folders, names in os.walk(incoming, onerror=unreadable):
        links = [name for name in folders if Path(root, name).is_symlink()]
        found += [Path(root, name) for name in (*names, *links)]
    named = sorted((_name(path, incoming), path) for path in found)
    return {name: path for name, path in named if not any(part.startswith(".") for part in name.split("/"))}


def _name(path: Path, incoming: Path) -> str:
    """A file's name; bytes in it that are not UTF-8 are escaped."""
    return os.fsencode(path.relative_to(incoming).as_posix()).decode("utf-8", "backslashreplace")


def collect(source: str, files: Mapping[str, Path], known: ChampionText, params: Params, out: Path) -> Snapshot:
    """Read all files; write documents and quarantine into the folder `out`."""
    records, dropped, quarantined = 0, dict.fromkeys(Repeat, 0), Counter[str]()
    (out / DOCUMENTS).mkdir()
    with TemporaryFile(dir=out) as file, (out / QUARANTINE).open("wb") as quarantine:
        draft = Draft(file)
        for name, number, text in tqdm(_texts(files, params), desc="reading", unit="doc", unit_scale=True):
            records += 1
            if isinstance(text, InputError):
                quarantined[name] += 1
                reason = _reason(text, files[name], name)
                quarantine.write(_line({"file": name, "record": number, "reason": reason}))
                continue
            normalised = normalise(text)
            identity = digest(normalised)
            repeat = _repeat(normalised, identity, known, draft)
            if repeat:
                dropped[repeat] += 1
            if repeat in (None, Repeat.REPEATED):
                draft.add(identity, _line({params.corpus.files.text_field: text}), len(text))
        accepted = draft.write(out / DOCUMENTS)
    return Snapshot(
        source=source,
        files=len(files),
        records=records,
        accepted=accepted,
        quarantined=Quarantined(count=quarantined.total(), files=dict(quarantined)),
        dropped=dropped,
        documents_md5=path_hash(out / DOCUMENTS)["md5"],
    )


def _texts(files: Mapping[str, Path], params: Params) -> Iterator[tuple[str, int | None, str | InputError]]:
    """File, record number, and text or what is wrong with it."""
    for name, path in files.items():
        for number, text in read_texts(path, params.corpus.files.text_field):
            wrong = text if isinstance(text, InputError) else unfit(text, params.retrain.snapshot)
            yield name, number, wrong or text


def unfit(text: str, fit: SnapshotParams) -> InputError | None:
    """Why a text, which was read without an error, is not fit to be taken; None for one that is."""
    if len(text) > fit.longest:
        most = f"at most {fit.longest} (params.yaml: retrain.snapshot.longest)"
        return InputError(f"the text has {len(text)} characters", expected=most)
    if "\0" in text:
        return InputError(f"the text has NUL (character {text.index(chr(0))})", expected="text")
    control = sum(1 for _ in CONTROL.finditer(text)) / len(text)
    if control > fit.most_control:
        what = f"{control:.1%} of the text are control characters"
        return InputError(what, expected=f"at most {fit.most_control:.1%} (params.yaml: retrain.snapshot.most_control)")
    return None


def _reason(error: InputError, path: Path, name: str) -> str:
    """One line without the place, which has keys of its own, and without what to do about params.yaml."""
    text = str(InputError(error.what, expected=error.expected))
    return " ".join(text.replace(str(path), name).split())


def _repeat(normalised: str, identity: bytes, known: ChampionText, draft: Draft) -> Repeat | None:
    """Whether a document is there already; the comparison that takes long comes last."""
    if identity in known.validation:
        return Repeat.VALIDATION_EXACT
    if identity in known.train:
        return Repeat.KNOWN
    if identity in draft:
        return Repeat.REPEATED
    if known.near and known.near.matches(normalised):
        return Repeat.VALIDATION_NEAR
    return None


def _line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def table(snapshot: Snapshot) -> Table:
    """The counts, for the terminal."""
    text = f"{snapshot.records} records in {snapshot.files} files"
    counts = Table(title=text, title_justify="left", pad_edge=False)
    counts.add_column("what became of them")
    counts.add_column("records", justify="right")
    counts.add_row(f"accepted ({snapshot.accepted.characters} characters)", str(snapshot.accepted.documents))
    counts.add_row("quarantined", str(snapshot.quarantined.count))
    for repeat, count in snapshot.dropped.items():
        counts.add_row(f"dropped: {repeat}", str(count))
    return counts


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
