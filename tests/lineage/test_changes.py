"""What kind of change it is: comments told from code, an order from rows, versions from an environment lock."""

import pytest

from lineage.changes import Change, file_kind, package_changes, parameter_kind


@pytest.mark.parametrize(
    ("path", "before", "after", "kind"),
    [
        ("a.py", "x = 1\n", "# why\nx = 1  # so\n\n", Change.COMMENT),
        ("a.py", "x = 1\n", "x = 2\n", Change.CODE),
        ("a.py", "x = 1\n", "x = (\n", Change.CODE),
        ("a.py", '"""Doc."""\nx = 1\n', '"""Other."""\nx = 1\n', Change.CODE),
        ("a.sh", "echo a\n", "# why\necho a\n", Change.COMMENT),
        ("a.sh", "#!/bin/sh\necho a\n", "#!/bin/bash\necho a\n", Change.CODE),
        ("conf.yaml", "a: 1\n", "a: 1  # one\n", Change.COMMENT),
        ("conf.yaml", "a: 1\n", "a: 2\n", Change.CODE),
        ("Makefile", "a:\n\techo\n", "a:\n\techo b\n", Change.CODE),
        ("rows.csv", "a\nb\nc\n", "c\na\nb\n", Change.ORDER),
        ("rows.csv", "a\nb\nb\n", "b\na\na\n", Change.ROWS),
        ("rows.csv", "a\nb\n", "a\nb\nc\n", Change.ROWS),
    ],
)
def test_a_file_s_change_is_named(path: str, before: str, after: str, kind: Change) -> None:
    assert file_kind(path, before.encode(), after.encode())[0] is kind
    assert file_kind(path, after.encode(), before.encode())[0] is kind


def test_bytes_that_are_nowhere_are_no_comment() -> None:
    assert file_kind("a.py", None, b"x") == (Change.CODE, "") and file_kind("a.csv", b"x", None) == (Change.ROWS, "")


def test_how_much_changed_is_said() -> None:
    assert file_kind("a.csv", b"a\nb\n", b"b\nc\nd\n")[1] == "3 lines are on one side only"
    assert file_kind("a.bin", b"\0a", b"\0bcd")[1] == "sizes differ by 2 bytes"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("training.seed", Change.SEED),
        ("seeds", Change.SEED),
        ("probe_seed", Change.SEED),
        ("seedling", Change.PARAMETER),
        ("training.rate", Change.PARAMETER),
        ("hub.revision", Change.SOURCE),
        ("file.sha256", Change.SOURCE),
    ],
)
def test_a_parameter_s_kind_is_in_its_name(key: str, kind: Change) -> None:
    assert parameter_kind(key) is kind


def test_packages_of_two_locks() -> None:
    before, after = b"numpy==1.0\nscipy==2.0  # via x\ngone==1\n", b"numpy==1.1\nscipy==2.0\nnew[extra]==3 ; a\n"
    changes = package_changes(before, after)
    assert changes == {"gone": ("1", None), "new[extra]": (None, "3"), "numpy": ("1.0", "1.1")}
