"""The page of a study says what is wrong in reports that were kept."""

import json
from pathlib import Path

from commands.study import corrections, records
from lineage.records import files_of
from reporting.content import Paragraph
from reporting.readings import Reader

KEPT = Path(__file__).parents[2] / "reports/study"


def test_the_page_of_the_kept_study_names_the_locks_that_its_reports_deny() -> None:
    (section,) = corrections(Reader(), KEPT)
    (line,) = section.blocks
    assert isinstance(line, Paragraph)
    assert line.text in (KEPT / "README.md").read_text(encoding="utf-8").replace("\\", "")
    files = [file for record in records(KEPT) for file in files_of(record).glob("data/evaluation/*/manifest.json")]
    manifests = [json.loads(file.read_bytes()) for file in files]
    for locks in (manifest["environment"]["locks"] for manifest in manifests):
        assert len(locks) == 2 and all(f"{file} {digest}" in line.text for file, digest in locks.items())
    assert "of 13 records" in line.text and len(manifests) > 13
