"""Does every dependency have the hash of what its producer made? Git merges distant stages of a lock without a word."""

from collections.abc import Iterator, Sequence

from lineage.checks.case import Case
from lineage.contents import Recorded, part_hash
from lineage.model import Fault, File, Finding, Run


def check_links(case: Case) -> Iterator[Finding]:
    """Inputs against the outputs that they are, lie in, or contain; frozen and left-over stages' may have moved on."""
    for run in case.live.values():
        for file in run.inputs:
            producers = [made for made in case.graph.producers(file.path) if made[0].name != run.name]
            if not producers or file.hash is None:
                continue
            producer, output = producers[0]
            if output.hash is None:
                yield _unchecked(run, file, f"the lock has no hash of what {producer.name} made")
            elif output.path == file.path:
                yield from _same(case, run, file, producer, output)
            elif file.path.startswith(output.path + "/"):
                yield from _inside(case, run, file, producer, output)
            else:
                yield from _contains(case, run, file, [made for _, made in producers])


def _same(case: Case, run: Run, file: File, producer: Run, output: File) -> Iterator[Finding]:
    if output.hash == file.hash:
        return
    if output.algorithm == file.algorithm:
        yield _differs(run, file, f"{producer.name} made {output.hash}")
    elif (made := Recorded(case.state).hash_as(output, file.algorithm)) is None:
        yield _unchecked(run, file, f"{producer.name} recorded another kind of hash, and the bytes are not here")
    elif made != file.hash:
        yield _differs(run, file, f"{producer.name} made {made}")


def _inside(case: Case, run: Run, file: File, producer: Run, output: File) -> Iterator[Finding]:
    listing = case.contents.listing(output) if output.is_folder else {}  # nothing lies in a file
    below = file.path[len(output.path) + 1 :]
    if listing is None:
        yield _unchecked(run, file, "the list of its folder's files is not here")
    elif (made := part_hash(listing, below)) != file.hash:
        if output.algorithm == file.algorithm or made is None:
            yield _differs(run, file, f"{producer.name} made {made or 'nothing there'}")
        elif below in listing:
            yield from _same(case, run, file, producer, File(file.path, made, output.algorithm))
        else:
            yield _unchecked(run, file, f"{producer.name} recorded another kind of hash")


def _contains(case: Case, run: Run, file: File, inside: Sequence[File]) -> Iterator[Finding]:
    manifest = case.manifest(run)
    if manifest is not None and any(path.startswith(file.path + "/") for path in manifest.inputs):
        return  # it says which files it read there, and `manifests` checks each
    expected = case.expected_folder(file)
    if expected is None:
        yield _unchecked(run, file, "the lists of the folders in it are not here")
    elif expected != file.hash and any(output.algorithm != file.algorithm for output in inside):
        yield _unchecked(run, file, "the hashes of what lies in it are of another kind")
    elif expected != file.hash:
        yield _differs(run, file, f"the outputs and committed files there make {expected}")


def _differs(run: Run, file: File, made: str) -> Finding:
    what = f"{run.name} recorded {file.hash} for its input, but {made}"
    return Finding(fault=Fault.LOCK, run=run.name, path=file.path, what=what)


def _unchecked(run: Run, file: File, why: str) -> Finding:
    return Finding(fault=Fault.UNCHECKED, run=run.name, path=file.path, what=f"{why}, so its hash was not compared")
