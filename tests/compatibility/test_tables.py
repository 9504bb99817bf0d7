"""The committed tables say what the Python originals say."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

from tables import TABLES, text  # noqa: E402


@pytest.mark.parametrize("name", sorted(TABLES))
def test_table_is_what_the_original_says(name: str) -> None:
    """A table that differs is made anew by `tables.py --write`; look at what changed."""
    assert (FOLDER / name).read_text() == text(TABLES[name]())
