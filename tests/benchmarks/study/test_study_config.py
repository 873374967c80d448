"""Studies read from TOML, their runs, their cut tasks, and the studies that we ship."""

import json
from pathlib import Path

import pytest

from benchmarks.study.config import StudyConfig, choose_layers, load_study, read_study
from benchmarks.study.runs import list_runs
from benchmarks.study.summary import late_gain
from benchmarks.study.tasks import embedded_texts, load_tasks
from benchmarks.study.words import describe_method, list_departures
from retrieval.errors import SourceNotFoundError, UnknownNameError, UsageError
from tests.benchmarks import fakes

STUDIES = sorted((Path(__file__).parents[3] / "benchmarks" / "studies").glob("*.toml"))


def variant(config, name, seed=0, base=0):
    found = [run for run in list_runs(config) if (run.variant, run.seed) == (name, seed)]
    return found[base].train.model


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_that_we_ship_is_one(path):
    config = load_study(path)
    runs = list_runs(config)
    paper = {f"model{number}" for number in (1, 2, 3, 4, 5)}
    assert paper <= {run.variant for run in runs}
    assert len({run.folder_name for run in runs}) == len(runs)
    assert list_departures(config)


def test_there_are_the_four_studies_of_the_plan():
    names = [path.stem for path in STUDIES]
    assert names == ["h200", "paper-mistral-7b", "qwen-0.5b", "small-cpu"]


def test_the_example_is_the_papers_setting():
    config = load_study(STUDIES[0].with_name("paper-mistral-7b.toml"))
    train = config.train
    assert (train.steps, train.batch_pairs, train.loss.scale) == (1000, 2048, 50)
    assert (train.adapter.rank, train.adapter.alpha, train.adapter.dropout) == (16, 32, 0.1)
    assert train.optimiser.learning_rate == 1e-5
    spec = variant(config, "model5")
    assert (spec.pooling_options.latents, spec.pooling_options.heads) == (768, 32)
    # All that the config can say is the paper's, so no key of it is listed.
    assert not any(line.startswith(("train.", "pooling.")) for line in list_departures(config))


def test_what_departs_from_the_paper_is_listed(study_config):
    found = list_departures(study_config(departures=["Mine."]))
    assert found[0] == "Mine."
    assert "Base: tiny; the paper's main base is Mistral-7B-v0.1." in found
    assert "train.batch_pairs is 4; the paper's is 2048." in found
    assert "pooling.heads is by width; the paper's is 32." in found


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"seed": [1]}, UnknownNameError, "Unknown config key 'seed'. Did you mean 'seeds'"),
        ({"cut": {"querys": 3}}, UnknownNameError, "Did you mean 'cut.queries'"),
        ({"variants": [{"name": "model9"}]}, UsageError, "Unknown variant 'model9'"),
        ({"baseline": "model2"}, UnknownNameError, "Unknown baseline 'model2'"),
        ({"seeds": [1, 1]}, UsageError, "The seed '1' is in the study twice"),
        ({"seeds": []}, UsageError, "has no seed"),
        ({"seeds": [-1]}, UsageError, "seeds holds -1"),
        ({"bench": {"k": 0}}, UsageError, r"\[bench\] k is 0"),
        ({"bench": {"backend": "fais"}}, UsageError, r"\[bench\] Unknown index backend 'fais'"),
        ({"alpha": 1.5}, UsageError, "alpha is 1.5"),
        ({"cut": {"documents": -1}}, UsageError, "cut.documents is -1"),
        (
            {"variants": [{"name": "model1", "bases": ["tyni"]}]},
            UnknownNameError,
            "Unknown base 'tyni'. Accepted: tiny",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named(study_config, changes, error, message):
    with pytest.raises(error, match=message):
        study_config(**changes)


def test_a_start_from_a_trained_model_is_refused(study_plan, study_data):
    plan = study_plan()
    plan["train"] = plan["train"] | {"adapter": {"start": "my-model"}}
    with pytest.raises(UsageError, match="all variants of a study start from the untrained base"):
        read_study(plan, study_data)


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(SourceNotFoundError, match="millpond study --example > "):
        load_study(tmp_path / "none.toml")


def test_fewer_than_three_seeds_are_cautioned_against(study_config):
    assert any("2 seeds; 3 or more" in line for line in study_config().cautions)
    assert study_config(seeds=[0, 1, 2]).cautions == []


def test_all_variants_of_a_seed_come_before_the_next_seed(study_config):
    order = [(run.seed, run.variant) for run in list_runs(study_config())]
    assert order == [(0, "model1"), (0, "model5"), (1, "model1"), (1, "model5")]


def test_runs_of_a_seed_differ_in_the_model_alone(study_config):
    first, second = list_runs(study_config())[:2]
    assert first.train.model != second.train.model
    same = {name for name in vars(first.train) if name != "model"}
    assert all(getattr(first.train, name) == getattr(second.train, name) for name in same)


def test_options_go_to_the_poolings_that_have_them(study_config):
    variants = [
        {"name": "model1"},
        {"name": "model5"},
        {"name": "two", "variant": "model5", "options": {"latents": 2, "seed": 7}},
        {"name": "part", "variant": "layer_mean+causal", "layers": "every fourth"},
    ]
    config = study_config(variants=variants)
    assert variant(config, "model1").pooling_options.changed() == {}
    assert variant(config, "model5", seed=1).pooling_options.changed() == {
        "latents": 3,
        "head_width": 8,
        "seed": 1,
    }
    two = variant(config, "two", seed=1).pooling_options
    assert (two.latents, two.head_width, two.seed) == (2, 8, 7)
    assert variant(config, "part").pooling_options.changed() == {"layers": (4,)}


def test_a_variant_may_be_of_one_base_only(study_plan, study_data):
    plan = study_plan(variants=[{"name": "model1"}, {"name": "model5", "bases": ["tiny"]}])
    plan["bases"] = [*plan["bases"], plan["bases"][0] | {"name": "other"}]
    runs = list_runs(read_study(plan | {"seeds": [0]}, study_data))
    assert [(run.base, run.variant) for run in runs] == [
        ("tiny", "model1"),
        ("tiny", "model5"),
        ("other", "model1"),
    ]


@pytest.mark.parametrize(
    ("choice", "depth", "layers"),
    [
        ("all", 12, ()),
        ("first third", 30, tuple(range(1, 11))),
        ("middle third", 30, tuple(range(11, 21))),
        ("last third", 30, tuple(range(21, 31))),
        ("first third", 4, (1,)),  # 4 / 3 = 1.33 and 2.67: 1, then 2 to 3, then 4
        ("middle third", 4, (2, 3)),
        ("last third", 4, (4,)),
        ("every fourth", 30, (2, 6, 10, 14, 18, 22, 26, 30)),
        ("every fourth", 12, (4, 8, 12)),
    ],
)
def test_a_part_of_the_layers(choice, depth, layers):
    assert choose_layers(choice, depth) == layers


def test_a_part_of_the_layers_needs_their_number(study_plan, study_data):
    plan = study_plan(
        variants=[{"name": "model1"}, {"name": "p", "variant": "model5", "layers": "last third"}]
    )
    plan["bases"] = [{k: v for k, v in plan["bases"][0].items() if k != "base_layers"}]
    with pytest.raises(UsageError, match="base_layers of tiny must be given"):
        list_runs(read_study(plan, study_data))


def test_names_that_would_share_a_folder_are_refused(study_config):
    variants = [
        {"name": "model1"},
        {"name": "a b", "variant": "model2"},
        {"name": "a/b", "variant": "model3"},
    ]
    with pytest.raises(UsageError, match="would share the folder"):
        list_runs(study_config(variants=variants))


def test_cut_tasks_are_smaller_named_so_and_the_same_each_time(study_config, tmp_path):
    cut = {"sts_pairs": 2, "clustering_rows": 18, "test_rows": 1, "queries": 1, "documents": 2}
    config = study_config(cut=cut)
    found = load_tasks(config, tmp_path / "tasks", lambda line: None)
    assert {one.task.name: dict(one.data.counts) for one in found} == {
        "ponds-cut": {"documents": 2, "queries": 1, "judgements": 1},
        "wetness-cut": {"train": 18, "test": 1, "labels": 2},
        "weather-cut": {"texts": 18, "labels": 2, "splits": 1},
        "pairs-cut": {"pairs": 2},
    }
    texts = {one.task.name: embedded_texts(one.data) for one in found}
    again = load_tasks(config, tmp_path / "tasks", lambda line: None)
    assert {one.task.name: embedded_texts(one.data) for one in again} == texts


def test_the_report_says_how_the_tasks_were_cut(study_config):
    said = describe_method(study_config(cut={"sts_pairs": 1200, "queries": 7}))
    assert "Of larger tasks these were drawn: 1,200 pairs of an STS task; 7 queries." in said
    assert not any("drawn:" in line for line in describe_method(study_config()))


def test_what_is_relevant_for_a_kept_query_stays(study_config, tmp_path):
    """Both queries are kept, and each has one relevant document, so one document is too few."""
    config = study_config(cut={"documents": 1})
    found = {one.task.name: one for one in load_tasks(config, tmp_path, lambda line: None)}
    assert found["ponds-cut"].data.counts["documents"] == 2
    corpus = (tmp_path / "ponds-cut" / "corpus.jsonl").read_text().splitlines()
    assert [json.loads(line)["_id"] for line in corpus] == ["b", "c"]
    assert {"pairs", "wetness", "weather"} <= set(found)


def test_nothing_is_cut_by_default(study_config, tmp_path):
    found = load_tasks(study_config(), tmp_path / "tasks", lambda line: None)
    assert sorted(one.task.name for one in found) == ["pairs", "ponds", "weather", "wetness"]
    assert not (tmp_path / "tasks").exists()
    assert not StudyConfig.__dataclass_fields__["cut"].default_factory().any


def test_a_task_of_mteb_is_refused_with_what_to_do_instead(study_config, tmp_path):
    pytest.importorskip("mteb", reason="mteb is optional")
    config = study_config(tasks=["mteb:STS12"])
    with pytest.raises(UsageError, match="files and BEIR sets alone.*--task mteb:STS12"):
        load_tasks(config, tmp_path, lambda line: None)


def test_the_late_gain_compares_the_last_two_fifths():
    """Of ten losses the seventh and eighth have mean 2, the last two 1.5: a fall of a quarter."""
    curve = [(step, 9.0) for step in range(1, 7)] + [(7, 2.5), (8, 1.5), (9, 1.0), (10, 2.0)]
    assert late_gain(curve) == pytest.approx(0.25)
    assert late_gain(curve[:9]) is None


@pytest.mark.parametrize(
    ("changes", "rows", "advice"),
    [
        ({}, [("gone", "a", 1)], "or set bench.skip_bad = true in the config to leave such rows"),
        ({"bench": {"split": "dev"}}, [("q", "a", 1)], "Set bench.split in the config."),
    ],
)
def test_a_bad_task_is_told_with_what_a_study_can_do(study_plan, tmp_path, changes, rows, advice):
    fakes.write_beir(tmp_path / "mills", {"a": "mill"}, {"q": "mill"}, rows)
    (tmp_path / "pairs.jsonl").touch()
    config = read_study(study_plan(tasks=["mills"], **changes), tmp_path)
    with pytest.raises(UsageError) as caught:
        load_tasks(config, tmp_path / "tasks", lambda line: None)
    assert advice in str(caught.value)
    assert " --" not in str(caught.value)
