"""Files are replaced whole, or stay as they were."""

import pytest

from headwater.local import write_atomically


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    page = tmp_path / "report.html"
    for text in ("old", "new"):
        write_atomically(page, lambda file, text=text: file.write_text(text))
    assert page.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    page = tmp_path / "report.html"
    page.write_text("old")

    def half(file):
        file.write_text("ne")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(page, half)
    assert page.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
