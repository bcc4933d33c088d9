"""dvc.yaml as a person has written it: changed in place, with its order, comments and layout kept."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from artifacts.files import write_text


@contextmanager
def edited(file: Path) -> Iterator[Any]:
    """What the file holds, to be changed; it is written when the block ends, if its text is another then.

    DVC's own way of writing it would lay the whole file out anew.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    before = file.read_text(encoding="utf-8")
    content = yaml.load(before)
    yield content
    stream = io.StringIO()
    yaml.dump(content, stream)
    if stream.getvalue() != before:
        write_text(file, stream.getvalue())
