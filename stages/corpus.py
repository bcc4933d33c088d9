"""Make the text corpus: documents from the chosen source, split, without training text that validation has too.

Memory is bounded by a row group, one document, and the index of validation's documents. Knows no tokens.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from artifacts.files import fresh_folder
from artifacts.manifest import Outside
from runner.stage import Context, Stage, StageParams
from softmask.errors import InputError
from stages.params.corpus import CorpusParams, CorpusSource, Drop, FilesParams
from stages.sources.documents import Count, Document, ShardWriter, count_documents, read_documents
from stages.sources.duplicates import NearDuplicates, digest, normalise, position
from stages.sources.files import file_documents, fingerprint
from stages.sources.installed import digest_of
from stages.sources.package import package_documents, package_files


class Params(StageParams):
    """What the corpus is made from."""

    corpus: CorpusParams


def run(context: Context[Params]) -> None:
    """Read the source once into a draft, then drop duplicates on the way to the outputs.

    The draft lives with the checkpoints: a killed stage doesn't read (or download) a finished draft again.

    Raises:
        InputError: the source is missing, empty, or unreadable, or the split leaves one side empty.
    """
    params, snapshots = context.params.corpus, context.inputs["snapshots"]
    draft = context.checkpoints.path / "draft"
    seen = f"-{fingerprint(params.files)[:16]}" if params.source is CorpusSource.FILES else ""

    def read() -> dict[str, Any]:
        return collect(params, snapshots, draft)

    collected = context.checkpoints.unit(f"collected{seen}", read)
    validation = fresh_folder(context.outputs["validation"])
    shutil.copytree(draft / "validation", validation, dirs_exist_ok=True)
    kept = drop_duplicates(params, draft / "train", validation, context.outputs["train"])
    if not kept["train"]["documents"]:
        raise InputError(
            f"all {collected['train']['documents']} training documents are duplicates of validation documents",
            where="params.yaml: corpus.duplicates",
            expected="a source with different documents, or drop: none",
        )
    if params.source is CorpusSource.PACKAGE_SOURCES:
        package = params.package_sources
        sha256 = digest_of(package_files(package))
        context.sources.append(Outside(source=package.package, revision=package.version, sha256=sha256))
    context.counts.update({"empty": collected["empty"], "validation": collected["validation"], **kept})


def collect(params: CorpusParams, snapshots: Path, draft: Path) -> dict[str, Any]:
    """Read the source into `draft/train` and `draft/validation`, and snapshots into the former.

    Returns:
        Their counts, and that of empty documents.

    Raises:
        InputError: from the source; or one side of the split is empty.
    """
    empty = 0
    with ShardWriter(draft / "train", params.shards) as train, ShardWriter(draft / "validation", params.shards) as held:
        for document, in_validation in tqdm(
            chain(_split(params), _added(snapshots, params.files.text_field)),
            desc=f"reading {params.source}",
            unit="doc",
            unit_scale=True,
        ):
            if not document.text.strip():
                empty += 1
            elif in_validation:
                held.write(document)
            else:
                train.write(document)
    _check_split(params, train.count, held.count)
    return {"train": asdict(train.count), "validation": asdict(held.count), "empty": empty}


def drop_duplicates(params: CorpusParams, source: Path, validation: Path, target: Path) -> dict[str, Any]:
    """Copy training documents from `source` to `target`, without those that are in `validation` too.

    Returns:
        The counts of what was kept, and of what was dropped as exact and as near duplicates.
    """
    settings = params.duplicates
    if settings.drop is Drop.NONE:
        shutil.copytree(source, fresh_folder(target), dirs_exist_ok=True)
        kept = Count()
        for document in read_documents(target):
            kept.add(document)
        return {"train": asdict(kept), "dropped_exact": asdict(Count()), "dropped_near": asdict(Count())}
    digests: set[bytes] = set()
    index = NearDuplicates(settings)
    near = settings.drop is Drop.EXACT_AND_NEAR
    for document in tqdm(read_documents(validation), desc="indexing validation", unit="doc", unit_scale=True):
        text = normalise(document.text)
        digests.add(digest(text))
        if near:
            index.add(text)
    dropped_exact, dropped_near = Count(), Count()
    with ShardWriter(target, params.shards) as writer:
        total = count_documents(source)
        documents = read_documents(source)
        for document in tqdm(documents, desc="dropping duplicates", unit="doc", unit_scale=True, total=total):
            text = normalise(document.text)
            if digest(text) in digests:
                dropped_exact.add(document)
            elif near and index.matches(text):
                dropped_near.add(document)
            else:
                writer.write(document)
    return {
        "train": asdict(writer.count),
        "dropped_exact": asdict(dropped_exact),
        "dropped_near": asdict(dropped_near),
    }


def _split(params: CorpusParams) -> Iterator[tuple[Document, bool]]:
    """Documents, and whether each belongs to validation."""
    if params.source is CorpusSource.HUB:
        from stages.sources.hub import HubStream  # seconds to import, and only this source needs it

        yield from HubStream(params.hub)
        return
    for document in _documents(params):
        yield document, position(digest(normalise(document.text))) < params.validation.fraction


def _added(snapshots: Path, text_field: str) -> Iterator[tuple[Document, bool]]:
    """What retrains have taken in, whatever the source is; all of it for training, so that validation stays."""
    paths = tuple(path.as_posix() for path in sorted(snapshots.glob("*/documents.jsonl")))
    for document in file_documents(FilesParams(paths=paths, text_field=text_field)):
        yield document, False


def _documents(params: CorpusParams) -> Iterator[Document]:
    if params.source is CorpusSource.PACKAGE_SOURCES:
        return package_documents(params.package_sources)
    return file_documents(params.files)


def _check_split(params: CorpusParams, train: Count, held: Count) -> None:
    if train.documents and held.documents:
        return
    total = train.documents + held.documents
    if not total:
        raise InputError(f"the source {params.source} has no text", where="params.yaml: corpus.source")
    side, mend = ("training", "a smaller") if held.documents else ("validation", "a larger")
    if params.source is CorpusSource.HUB:
        raise InputError(f"the split leaves no {side} document of {total}", where="params.yaml: corpus.hub")
    raise InputError(
        f"the split leaves no {side} document of {total}",
        where="params.yaml: corpus.validation.fraction",
        expected=f"{mend} fraction, or more documents",
        todo="A .txt file is one document: cut it into several, or give .jsonl"
        if params.source is CorpusSource.FILES
        else "",
    )


STAGE = Stage(
    name="corpus",
    params=Params,
    run=run,
    inputs={"check": "data/check/valid.json", "texts": "data/texts", "snapshots": "data/snapshots"},
    outputs={
        "train": "data/corpus/train",
        "validation": "data/corpus/validation",
        "manifest": "data/corpus/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
