"""A miniature of the published Dream tokenizer's folder, file for file: byte alphabet, a few merges, added tokens."""

import json
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

MERGES = (("r", "e"), ("re", "t"), ("Ġ", "a"), ("Ċ", "Ċ"), ("1", "2"))
"""`12` can never be used, since digits stand alone."""
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
FIRST_ADDED = len(ALPHABET) + len(MERGES)
ADDED = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>"),
    *("<tool_call>", "<|fim_prefix|>", "<|beginoftext|>", "<|mask|>"),
)
IDS = {token: FIRST_ADDED + number for number, token in enumerate(ADDED)}
SYSTEM = "You are a helpful assistant."
TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n"
    "{%- else %}\n"
    "    {{- '<|im_start|>system\\n" + SYSTEM + "<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role in ('user', 'assistant') %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "    {%- elif message.role != 'system' %}\n"
    "        {{- raise_exception('no such role: ' + message.role) }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n"
)


def added_token(token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": token, **flags, "special": not token.startswith(("<tool", "<|fim"))}


def write_published_tokenizer(folder: Path, **changes: Any) -> Path:
    """The folder; `changes` are of tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate([*ALPHABET, *("".join(pair) for pair in MERGES)])}
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): added_token(token) for token, number in IDS.items()},
        "additional_special_tokens": ["<|beginoftext|>", "<|mask|>"],
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "bos_token": "<|beginoftext|>",
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "errors": "replace",
        "mask_token": "<|mask|>",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "DreamTokenizer",
        "unk_token": None,
        **changes,
    }
    texts = {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in MERGES),
        "tokenizer_config.json": json.dumps({name: value for name, value in config.items() if value is not ...}),
        "added_tokens.json": json.dumps(IDS),
        "special_tokens_map.json": json.dumps({name: config[name] for name in ("bos_token", "eos_token")}),
        "tokenization_dream.py": "raise SystemExit('code of the checkpoint ran')\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder
