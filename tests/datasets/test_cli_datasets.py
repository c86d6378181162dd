"""``pudnet datasets``: every source on one line, with all that one has to know to get it."""

from typer.testing import CliRunner

from pudnet_lib.cli import app
from pudnet_lib.images import list_sources


def lines_of(*arguments):
    done = CliRunner().invoke(app, ["datasets", *arguments])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_every_source_has_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_DATA", str(tmp_path))
    (tmp_path / "cifar10" / "train").mkdir(parents=True)
    lines = lines_of("--long")
    for source in list_sources():
        (line,) = [text for text in lines if text.split(" ")[0] == source.name]
        for cell in (f"{source.classes:,}", f"{source.images:,}", source.size, source.licence, source.how_to_get):
            assert cell in line
    (cifar,) = [text for text in lines if text.startswith("cifar10 ")]
    assert " yes " in cifar
    assert any(str(tmp_path) in line for line in lines)


def test_named_sources_are_counted():
    header, line = lines_of("fashion")
    assert header.split() == ["name", "classes", "images", "images", "a", "class", "licence"]
    assert line.split()[:6] == ["fashion", "10", "11,000", "1100", "to", "1100"]


def test_the_short_list_fits_80_columns():
    assert max(len(line.rstrip()) for line in lines_of() if "--long" not in line) <= 80
