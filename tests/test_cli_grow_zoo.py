"""``pudnet grow-zoo`` trains what is lacking and says what there is."""

import pytest

from pudnet_lib.cli import main


def test_grow_zoo_finds_what_ships_and_trains_the_rest(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["grow-zoo", "--sources", "emoji", "--train-episodes", "121", "--held-out-episodes", "60"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "emoji, same initialisation: 121 training and 60 held-out networks, 0 diverged" in told
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["train-000120-000121.safetensors"] * 2


def test_an_unknown_source_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["grow-zoo", "--sources", "emojy"])
    assert ended.value.code == 2
    assert "emoji" in capsys.readouterr().err
