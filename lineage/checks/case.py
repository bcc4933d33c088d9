"""What every check needs: the record of a state, the runs that are asked about, their bytes. Finds nothing itself."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lineage.contents import Contents, read_value, whole_hash
from lineage.declared import Declarations, frozen_stages
from lineage.errors import Unreadable
from lineage.graph import Graph
from lineage.hashing import bytes_hash, folder_hash
from lineage.manifests import Manifest, manifest_of
from lineage.model import File, Run
from lineage.states import State


@dataclass(frozen=True)
class Case:
    """A state whose record is checked.

    Args:
        names: the runs that are asked about.
        whole: whether that is the whole project, so that what has not run is asked about, too.
    """

    graph: Graph
    names: tuple[str, ...]
    whole: bool = False
    contents: Contents = field(init=False)
    _manifests: dict[str, Manifest | None] = field(default_factory=dict, init=False)
    _parameters: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "contents", Contents(self.graph.state))

    @property
    def state(self) -> State:
        """The commit, experiment or workspace."""
        return self.graph.state

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The runs that are asked about, what is read before what reads it."""
        return tuple(self.graph.runs[name] for name in self.names)

    @property
    def declared(self) -> Declarations:
        """What the dvc.yaml files say now."""
        return self.graph.declared

    def declares(self, name: str) -> bool:
        """Whether dvc.yaml has a stage that dvc.lock has no record of."""
        return name in self.declared.stages and name not in self.graph.runs

    def command(self, name: str) -> tuple[str, ...]:
        """What dvc.yaml says that a stage runs; nothing where it can't be read or has no such stage."""
        stage = self.declared.stages.get(name)
        return stage.command if stage is not None else ()

    @cached_property
    def frozen(self) -> frozenset[str]:
        """The runs whose outputs are kept, whatever became of their code, parameters and inputs."""
        return frozen_stages(self.state).frozen()

    @cached_property
    def left_over(self) -> frozenset[str]:
        """The runs whose stage dvc.yaml no longer has, such as those of a seed that was removed; DVC keeps them."""
        return frozenset(run.name for run in self.runs if not self.graph.is_current(run))

    @cached_property
    def live(self) -> dict[str, Run]:
        """Name -> run, of those asked about that DVC would bring up to date: neither frozen nor left over."""
        return {run.name: run for run in self.runs if run.name not in self.frozen | self.left_over}

    def outputs(self) -> Iterator[tuple[Run, File]]:
        """Every output of the runs, but what one made whose stage was renamed: another has made it anew since."""
        for run in self.runs:
            for file in run.outputs:
                maker, _ = self.graph.made.get(file.path, (None, file))
                if maker is run or self.graph.is_current(run):
                    yield run, file

    def manifest(self, run: Run) -> Manifest | None:
        """A run's manifest, where it has one."""
        if run.name not in self._manifests:
            self._manifests[run.name] = manifest_of(run, self.contents)
        return self._manifests[run.name]

    def parameters(self, file: str) -> Any:
        """What a parameter file says; None where it isn't there or can't be read."""
        said = self._said(file)
        return None if isinstance(said, Unreadable) else said

    def unreadable(self, file: str) -> str | None:
        """Why nothing is known of what a parameter file says now; None where it is read, or gone."""
        if self.state.leads_out(file):
            return "it lies outside the repository, where nothing is read"
        said = self._said(file)
        return str(said) if isinstance(said, Unreadable) else None

    def _said(self, file: str) -> Any:
        """What a parameter file says, or why it can't be read; None where it isn't there."""
        if file not in self._parameters:
            data = self.state.read(file)
            try:
                self._parameters[file] = None if data is None else read_value(data, file)
            except Unreadable as error:
                self._parameters[file] = error
        return self._parameters[file]

    def files_in(self, path: str) -> dict[str, str]:
        """(Path below a folder) -> hash of what lies there and no run made; empty for a file."""
        return {p: digest for p, digest in self.contents.here(File(path)).items() if p}

    def current_hash(self, file: File) -> str | None:
        """The hash of what lies at an input's path now; None where nothing does."""
        return file.hash if file.is_external else self.contents.current_hash(file)

    def has_elsewhere(self, blob: str | None) -> str | None:
        """A path where the commit has what git has by an id, if there is one."""
        return self._paths.get(blob) if blob is not None else None

    @cached_property
    def _paths(self) -> dict[str, str]:
        """Git's id of a file -> its path in the commit."""
        return {blob: path for path, blob in self.state.committed_under("").items()}

    def recorded_bytes(self, path: str, digest: str | None) -> bytes | None:
        """A file's bytes, if they are the ones that were recorded."""
        return next((data for data in self.state.forms(path) if bytes_hash(data) == digest), None)

    def committed_hash(self, file: File) -> str | None:
        """The hash of what the commit has at a path: the recorded one if git may lay it out so."""
        return whole_hash(self.contents.committed(file))

    def expected_folder(self, file: File) -> str | None:
        """The hash that a folder has if it holds what runs make there and what git keeps; None where a list is missing.

        Args:
            file: an input that contains outputs.
        """
        entries = dict(self.contents.committed(file))
        for _, output in self.graph.producers(file.path):
            below = output.path[len(file.path) + 1 :]
            entries = {p: digest for p, digest in entries.items() if not f"{p}/".startswith(f"{below}/")}
            if not output.is_folder:
                entries[below] = output.hash or ""
                continue
            listing = self.contents.listing(output)
            if listing is None:
                return None
            entries.update({f"{below}/{p}": digest for p, digest in listing.items()})
        return folder_hash(entries.items())
