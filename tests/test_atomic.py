"""A file is the old one or the new one, whatever happens in between."""

import pytest

from genda.atomic import replacing


def test_a_finished_file_takes_the_place_of_the_old_one(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with replacing(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "file"
    target.write_text("old")

    def interrupted():
        with replacing(target) as partial:
            partial.write_text("ne")
            raise error

    with pytest.raises(error):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_text() == "old"


def test_a_folder_appears_whole_and_takes_no_place(tmp_path):
    for name in ("first", "second"):
        with replacing(tmp_path / name) as partial:
            (partial / "inside").mkdir(parents=True)
            (partial / "inside" / "file").write_text(name)
    assert (tmp_path / "second" / "inside" / "file").read_text() == "second"

    def taken():
        with replacing(tmp_path / "first") as partial:
            partial.mkdir()
            (partial / "file").write_text("other")

    with pytest.raises(OSError, match="not empty"):
        taken()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    assert (tmp_path / "first" / "inside" / "file").read_text() == "first"
