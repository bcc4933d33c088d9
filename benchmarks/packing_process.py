"""One measurement of packing, in a process that does nothing else: `python -m benchmarks.packing_process TASK FOLDER`.

FOLDER has `corpus/train`, `corpus/validation` and `tokenizer` as the stages leave them. Prints seconds, and in MiB the
peak of resident memory, Python and mapped pages included. Imports no torch, as the stage doesn't. Linux only.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset, Features, List, Value, disable_progress_bars

from artifacts.files import read_tokenizer
from runner.stage import Context
from runner.store import Checkpoints
from stages.params.tokens import TokensParams
from stages.tokens import Params, run

SPLITS = ("train", "validation")
PACKING = TokensParams(length=1024, batch_characters=1_000_000)
"""The paper's length; batches as in conf/common.yaml."""
MAP_BATCH = 50
"""Documents: of these about as many characters as the stage's batch has."""


def stage(folder: Path) -> Callable[[], object]:
    """The stage `tokens`: from shards of documents to rows on disk."""
    inputs = {split: folder / "corpus" / split for split in SPLITS}
    outputs = {split: folder / "tokens" / split for split in SPLITS}
    checkpoints = Checkpoints(folder / "checkpoints", "benchmark")
    context = Context(Params(tokens=PACKING), {**inputs, "tokenizer": folder / "tokenizer"}, outputs, {}, checkpoints)
    return lambda: run(context)


def datasets_map(folder: Path) -> Callable[[], object]:
    """`datasets.map` that encodes the same training documents with the same tokenizer, and packs nothing."""
    tokenizer = read_tokenizer(folder / "tokenizer")
    shards = sorted(str(path) for path in (folder / "corpus/train").glob("*.parquet"))
    texts = Dataset.from_parquet(shards, cache_dir=str(folder / "cache"), columns=["text"])

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encodings = tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False)
        return {"ids": [encoding.ids for encoding in encodings]}

    return lambda: texts.map(
        encode,
        batched=True,
        batch_size=MAP_BATCH,
        remove_columns=["text"],
        features=Features({"ids": List(Value("uint16"))}),
        cache_file_name=str(folder / "cache/ids.arrow"),
    )


TASKS = {"stage": stage, "datasets.map": datasets_map}


def main(task: str, folder: str) -> None:
    """Prepare, then measure; what preparing took doesn't count, but for what of its memory stays."""
    disable_progress_bars()
    work = TASKS[task](Path(folder))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert peak is not None, "Linux says it"
    print(json.dumps({"seconds": seconds, "peak_mib": int(peak[1]) / 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
