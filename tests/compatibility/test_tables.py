"""The committed tables say what the Python originals say."""

import pytest
from tables import FOLDER, TABLES, text


@pytest.mark.parametrize("name", sorted(TABLES))
def test_table_is_what_the_original_says(name: str) -> None:
    assert (FOLDER / name).read_text() == text(TABLES[name]()), "run tables.py --write and look at what changed"
