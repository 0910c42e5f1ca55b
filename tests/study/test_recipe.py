"""Recipes: what they come to, and what each mistake says."""

from pathlib import Path

import pytest

from clarep.clarid.clarid import ClaridConfig
from clarep.distill.methods import METHODS
from clarep.errors import UserError
from clarep.study.recipe import bundled_recipes, find_recipe, load_recipe, with_top

ROOT = Path(__file__).parents[2]
FIRST = 'methods = ["vanilla", "cadistill"]\nseeds = [0, 1]\n'


def load(text: str, tmp_path: Path):
    path = tmp_path / "study.toml"
    path.write_text(text)
    return load_recipe(path)


def test_a_recipe_of_all_tables(tmp_path):
    text = """
    methods = ["vanilla", "weak", "guidance-only"]
    seeds = [3, 5]
    teacher = "some/teacher"
    student = "wrn16-2"
    layer = "stage2"
    [data]
    correlation = 0.9
    [test]
    correlation = 0.5
    [canonical]
    fraction = 0.2
    seed = 7
    [clarid]
    k = 64
    t = 0.9
    [train]
    epochs = 4
    warmup_share = 0
    rivals = {adv_steps = 3, kd_weight = 0.5}
    [evaluate]
    images = 100
    [variants.weak]
    method = "cadistill"
    fraction = 0.05
    train = {lambda_align = 0.1, rivals = {adv_steps = 9}}
    clarid = {k = 8}
    [variants.vanilla]
    student = "resnet8"
    """
    recipe = load(text, tmp_path)
    assert (recipe.name, recipe.teacher, recipe.seeds) == ("study", "some/teacher", (3, 5))
    assert (recipe.data.split, recipe.data.correlation) == ("train", 0.9)
    assert (recipe.test.split, recipe.test.correlation) == ("test", 0.5)
    assert recipe.clarid == ClaridConfig(k=64, t=0.9)
    assert recipe.evaluate.images == 100
    vanilla, weak, guidance = recipe.variants
    assert (vanilla.method, vanilla.student, vanilla.layer) == ("vanilla", "resnet8", None)
    assert (weak.method, weak.student, weak.layer) == ("cadistill", "wrn16-2", "stage2")
    assert (weak.train.lambda_align, weak.train.epochs, weak.fraction) == (0.1, 4, 0.05)
    assert (weak.train.rivals.adv_steps, weak.train.rivals.kd_weight) == (9, 0.5)
    assert weak.clarid == ClaridConfig(k=8, t=0.9)
    assert guidance.method == "guidance-only"
    assert (guidance.train.lambda_align, guidance.fraction) == (1.0, 0.2)


def test_the_test_set_is_the_training_sets_sibling(tmp_path):
    recipe = load(FIRST + "[data]\ncorrelation = 0.9\ndata_seed = 4", tmp_path)
    assert (recipe.test.split, recipe.test.correlation, recipe.test.data_seed) == ("test", 0.9, 4)


def test_an_existing_set_takes_the_place_of_settings(tmp_path):
    recipe = load(FIRST + '[canonical]\ntop = "x/canon"', tmp_path)
    assert recipe.canonical.top == Path("x/canon")
    assert with_top(load(FIRST, tmp_path), Path("x/canon")) == recipe


WRONG = {
    "no methods": ("seeds = [0]", "study.toml: lacks methods: give it"),
    "no seeds": ('methods = ["vanilla"]', "study.toml: lacks seeds"),
    "empty methods": ("methods = []\nseeds = [0]", "methods must name at least one"),
    "empty seeds": ('methods = ["vanilla"]\nseeds = []', "seeds must name at least one"),
    "seeds twice": ('methods = ["vanilla"]\nseeds = [1, 1]', "each once"),
    "seed": ('methods = ["vanilla"]\nseeds = [-1]', "study.toml: `seeds=-1` is below 0"),
    "method": (
        'methods = ["vanila"]\nseeds = [0]',
        "study.toml: methods: unknown method 'vanila': did you mean vanilla",
    ),
    "methods twice": (
        'methods = ["vanilla", "vanilla"]\nseeds = [0]',
        "methods must name at least one, each once",
    ),
    "key": (FIRST + 'techer = "x"', "study.toml: unknown key 'techer': did you mean teacher"),
    "table": (FIRST + "[trian]\nepochs = 1", "study.toml: unknown key 'trian': did you mean train"),
    "table as key": (
        FIRST + "train = 3",
        "study.toml: train = 3 is of the wrong type: give a table",
    ),
    "train's key": (FIRST + "[train]\nepoch = 3", "[train] unknown key 'epoch': did you mean epo"),
    "train's type": (FIRST + '[train]\nepochs = "3"', "[train] epochs = '3' is of the wrong type"),
    "train's value": (FIRST + "[train]\nepochs = 0", "study.toml: [train] "),
    "train's seed": (FIRST + "[train]\nseed = 3", "[train] unknown key 'seed'"),
    "rivals": (
        FIRST + "[train.rivals]\nkd_wight = 3",
        "unknown key 'kd_wight': did you mean kd_w",
    ),
    "kind": (FIRST + '[clarid]\nkind = "top"', "[clarid] unknown key 'kind'"),
    "clarid's literal": (FIRST + '[clarid]\nsolver = "huen"', "solver: unknown value 'huen'"),
    "clarid's value": (FIRST + "[clarid]\nsteps = 0", "study.toml: [clarid] `steps=0` is below 1"),
    "NaN": (FIRST + "[clarid]\nk = nan", "clarid.k is nan"),
    "1e13": (FIRST + "[train]\nbatch_size = 10_000_000_000_000", "[train] batch_size = 1000000"),
    "fraction": (
        FIRST + "[canonical]\nfraction = 1.5",
        "`canonical.fraction=1.5` is outside (0, 1]",
    ),
    "variant's fraction": (
        FIRST + "[variants.cadistill]\nfraction = 0.0",
        "[variants.cadistill] `fraction=0.0` is outside",
    ),
    "variant's seed": (
        FIRST + "[variants.cadistill]\ncanonical_seed = -1",
        "[variants.cadistill] `canonical_seed=-1` is below 0",
    ),
    "evaluate": (FIRST + "[evaluate]\nimags = 1", "[evaluate] unknown key 'imags': did you mean"),
    "evaluate's value": (FIRST + "[evaluate]\nimages = 0", "study.toml: [evaluate] "),
    "variant": (FIRST + "[variants.cadistil]", "[variants.cadistil] is not among methods"),
    "variant's method": (
        FIRST + '[variants.cadistill]\nmethod = "cadstill"',
        "[variants.cadistill] method: unknown method 'cadstill': did you mean cadistill",
    ),
    "variant called as another method": (
        FIRST + '[variants.vanilla]\nmethod = "cadistill"',
        "[variants.vanilla] method = 'cadistill' would stand in the table as vanilla",
    ),
    "variant's key": (FIRST + "[variants.vanilla]\nepochs = 3", "[variants.vanilla] unknown key"),
    "variant's train": (
        FIRST + "[variants.vanilla.train]\nepoch = 3",
        "[variants.vanilla.train] unknown key 'epoch'",
    ),
    "top and fraction": (
        FIRST + '[canonical]\ntop = "x"\nfraction = 0.1',
        "[canonical] fraction is that of the set",
    ),
    "top and clarid": (FIRST + '[canonical]\ntop = "x"\n[clarid]\nk = 3', "[clarid] is that of"),
    "top and variant": (
        FIRST + '[canonical]\ntop = "x"\n[variants.cadistill]\nfraction = 0.5',
        "[variants.cadistill] gives settings of a canonical set",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_names_file_key_and_mend(case, tmp_path):
    text, words = WRONG[case]
    with pytest.raises(UserError) as raised:
        load(text, tmp_path)
    assert words in str(raised.value)
    assert "study.toml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_recipes_by_name_and_by_path(tmp_path):
    assert find_recipe("demo") == bundled_recipes()["demo"]
    assert find_recipe("some/where.toml") == Path("some/where.toml")
    with pytest.raises(UserError, match="unknown recipe 'dmeo': did you mean demo"):
        find_recipe("dmeo")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_every_recipe_of_ours_is_whole(path):
    recipe = load_recipe(path)
    assert recipe.variants[0].name == "vanilla"


def test_every_method_stands_in_a_recipe_of_ours():
    paths = (ROOT / "recipes").glob("*.toml")
    assert {one.method for path in paths for one in load_recipe(path).variants} == set(METHODS)


def test_no_recipe_stands_without_guidance_only_beside_cadistill():
    """Never report CaDistill without guidance-only samples beside it."""
    for path in (ROOT / "recipes").glob("*.toml"):
        methods = {variant.method for variant in load_recipe(path).variants}
        assert "vanilla" in methods
        assert "cadistill" not in methods or "guidance-only" in methods, path
