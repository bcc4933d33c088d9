"""Loading a model of transformers from a local folder: safetensors only, no foreign code, and no progress bar.

Knows no architecture.
"""

from pathlib import Path
from typing import Any

from transformers.utils import logging


def load_pretrained(kind: type[Any], folder: Path, **options: Any) -> Any:
    """What `kind.from_pretrained` makes of a folder.

    Args:
        kind: a model class of transformers, or one of its Auto classes.
        options: of `from_pretrained`.

    Raises:
        Exception: whatever transformers says about a folder that is no such model.
    """
    logging.set_tqdm_hook(lambda bar, args, named: bar(*args, **{**named, "disable": True}))  # "Loading weights"
    return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, **options)
