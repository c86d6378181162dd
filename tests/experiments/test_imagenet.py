"""What notebook 04 trains, read from its cells: counted work, the plan, and the command that trains it."""

import pytest

from pudnet_lib.cli import main
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.studies import imagenet
from pudnet_lib.studies.imagenet import planned, step_cost, trainings, work


@pytest.fixture(scope="module")
def smoke():
    runs, size = planned("smoke")
    assert (size["source"], size["steps"]) == ("emoji", 2)
    return runs


def test_the_paper_profile_is_planned_without_its_images():
    runs, size = planned("paper")
    assert (size["source"], size["width"]) == ("imagenet", 64)
    assert len(trainings(runs)) == 27  # nine designs and rivals, three seeds; what is refined is not trained again
    rates = {run.name: (run.recipe.lr, run.recipe.target_lr, run.recipe.base_lr) for run in runs}
    assert rates["PudNet (kit)"] == (1e-4, 2e-4, 2e-3)
    assert rates["shared network"][0] == 6e-4


def test_a_steps_cost_grows_with_its_images_and_its_parameters_do_not(smoke):
    shared = trainings(smoke)["shared network, seed 0"]
    one, two = (step_cost(shared, EpisodeConfig(3, 1, n, n)) for n in (4, 8))
    assert two.flops == pytest.approx(2 * one.flops, rel=0.02)
    assert two.activation_bytes == pytest.approx(2 * one.activation_bytes, rel=0.1)
    assert one.parameters == two.parameters
    rows = work(smoke)
    first = step_cost(next(iter(trainings(smoke).values())))
    assert rows[0]["memory_gb"] == pytest.approx((20 * first.parameters + first.activation_bytes) / 1e9)
    assert [row["run"] for row in rows] == list(trainings(smoke))
    assert min(rows, key=lambda row: row["flops"])["run"] == "shared network, seed 0"  # a hypernetwork comes on top


def test_the_plan_is_printed_before_anything_runs(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--profile", "smoke", "--seconds", "0"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for part in ("Profile smoke: emoji at 32 pixels", "GFLOP/s, measured", "H100", "PudNet (kit), seed 0", "GB a rank"):
        assert part in text
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--profile", "papre"])
    assert ended.value.code == 2


def test_the_training_command_trains_what_the_notebook_looks_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["imagenet-train", "--profile", "smoke", "--methods", "shared network", "--seeds", "0"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.count("2 steps") == 1
    for arguments in (
        ["--profile", "smokey"],
        ["--profile", "smoke", "--patience", "1"],
        ["--methods", "shred network"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(["imagenet-train", *arguments])
        assert ended.value.code == 2


def test_without_the_notebooks_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "project_root", lambda: tmp_path)
    with pytest.raises(PudNetError, match=r"no 04_imagenet\.ipynb"):
        planned("smoke")
