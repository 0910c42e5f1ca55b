"""What a newcomer gives in place of what is wanted: a sentence with the value and the mend.

The calls run in a process of their own, where no type checker stops them first.
"""

import json

import pytest

SETTING = """
import json, sys, tempfile
from pathlib import Path
import numpy as np, torch
import clarep
from PIL import Image
from clarep import AuditConfig, DataConfig, DistillConfig, EngineConfig, Student, SuiteConfig
from clarep import TeacherOptions
from clarep.clarid.clareps import CLAReps
from clarep.data.labelled import LabelledImages
from clarep.distill.methods import Method
from clarep.distill.train_student import train_student
from clarep.robustness.suite.suite import robustness_suite
from clarep.robustness.suite.suite_config import check_suite
from clarep.students.student_files import load_student, save_student

folder = Path(tempfile.mkdtemp())
pixels = np.random.default_rng(0).integers(0, 255, (24, 8, 8, 3)).astype(np.uint8)
sources = [str(i) for i in range(24)]
data = LabelledImages("made", np.arange(24) % 3, ("a", "b", "c"), sources, pixels.__getitem__)
mixed = LabelledImages("made", data.labels, ("b", "a", "c"), sources, pixels.__getitem__)
fewer = LabelledImages("made", data.labels % 2, ("b", "c"), sources, pixels.__getitem__)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
names, shape = ["a", "b", "c"], (3, 8, 8)
student = Student.from_module(net, names, shape)
save_student(student, folder / "own.safetensors")
zeros = {name: torch.zeros(3, 1, 2, 2) for name in ("x_te", "latent", "sample")}
reps = CLAReps(
    index=torch.arange(3), label=torch.arange(3), singular_values=torch.zeros(3, 1),
    features=torch.zeros(3, 1), round_trip_psnr=torch.zeros(3), **zeros,
)

def called(**parts):
    return clarep.Teacher.from_callable(**{
        "denoise": lambda x, sigma, labels: x, "features": lambda x, *_: x, "latent_shape": shape,
        "class_names": names, "sigma_min": 0.01, "sigma_max": 80.0, "taps": {"x": (3, 1)},
        "fingerprint": "none", **parts,
    })


teacher, cranes = called(), called(class_names=['a', 'a'])
clarid = clarep.Clarid(teacher, t=0.5, k=1, steps=1, guidance=1)


def train(data=data, **parts):
    parts = {"config": DistillConfig(epochs=1, batch_size=8), "student": student, **parts}
    return train_student(data, tempfile.mkdtemp(), **parts)


def giving(terms):
    def ce(method, batch):
        return method.cross_entropy(method.both(batch.images)[1], batch.labels)

    return type("Mine", (Method,), {"name": "mine", "terms": lambda m, b: terms(ce(m, b))})


said = {}
for text in json.loads(sys.argv[1]):
    try:
        said[text] = ["fine", repr(eval(text))]
    except Exception as error:
        said[text] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""
REFUSED = {
    'train("backdrops")': "`data` is a str",
    "train([pixels])": "`data` is a list",
    "train(student=folder)": "`student` is a PosixPath",
    "train(student=net)": "`student` is a Sequential",
    "train(method=3)": "`method=3` is no method",
    "train(studnet='resnet8')": "unknown argument 'studnet': did you mean student",
    "train(epochs=2)": "`epochs` is one of DistillConfig: give `config=DistillConfig(epochs=...)`",
    "clarep.cadistill(data, folder, folder / 'r', unknown=1)": "unknown argument 'unknown': valid",
    "train(config={})": "`config` is a dict",
    "train(method='kd', classifier='runs/a')": "`classifier` is a str",
    "train(method='diffaug', teacher='backdrops')": "`teacher` is a str",
    "train(method='doubted', audit=3)": "`audit` is a int",
    "train(method='cadistill', canonical=3)": "`canonical` is a int",
    "train(method=giving(lambda ce: [ce]))": "gives a list: give a dict of scalar tensors",
    "train(method=giving(lambda ce: ce))": "gives a Tensor",
    "train(method=giving(lambda ce: {}))": "gives a dict of {}",
    "train(method=giving(lambda ce: {'ce': 1.0}))": "'ce': 'float'",
    "train(method=giving(lambda ce: {'ce': ce.expand(3)}))": "'ce': (3,)",
    "train(method=giving(lambda ce: {'ce': ce.detach()}))": "nothing to train",
    "train(config=DistillConfig(canonical_batch_size='8'))": "`canonical_batch_size='8'` is no",
    "train(config=DistillConfig(flip='no'))": "`flip='no'` is of type str: give True",
    "train(config=DistillConfig(pick=3))": "`pick=3` is of type int: give best or",
    "train(config=DistillConfig(rivals=None))": "give RivalsConfig",
    "Student.from_module('resnet', names, shape)": "`net` is a str: give a torch.nn.Module",
    "Student.from_module(net, 3, shape)": "`class_names=3` is a int",
    "Student.from_module(net, ['a', 'b', 'a'], shape)": "gives 'a' twice",
    "Student.from_module(net, names, 8)": "`image_shape` is a int",
    "Student.from_module(net, names, (8, 8))": "image_shape (8, 8) is not (C, H, W)",
    "Student.from_module(net, names, shape, mean=0.5, std=0.5)": "do not normalise 3 channels",
    "Student.from_module(net, names, shape, layer=1)": "unknown layer of the module '1'",
    "clarep.compare('runs')": "`runs` is a str: give a list of run folders",
    "clarep.compare(folder)": "`runs` is a PosixPath",
    "clarep.compare([student])": "`runs` is a ModuleStudent",
    "clarep.compare([folder])": "holds no trained student",
    "robustness_suite(student, 'backdrops')": "`data` is a str",
    "robustness_suite(student, data, {})": "`config` is a dict",
    "robustness_suite(student, data, groups=['clean'])": "`groups` is one of SuiteConfig: give",
    "robustness_suite(student, data, basline=1)": "unknown argument 'basline': did you mean base",
    "check_suite(SuiteConfig(groups='clean'))": "`groups='clean'` is no tuple: give ('clean',)",
    "check_suite(SuiteConfig(severities=3))": "`severities=3` is no tuple",
    "check_suite(SuiteConfig(attack=None))": "give AttackConfig",
    "clarep.identify('backdrops', data, folder / 'c')": "`clarid` is a str: give a Clarid",
    "clarep.identify(clarid, pixels, folder / 'c')": "`data` is a ndarray: give what load_data",
    "clarid(data.images([0]), [0], seed='a')": "seed 'a' is outside 0 to 2^63 - 1",
    "clarid(data.images([0]), [0], seed=-1)": "seed -1 is outside 0 to 2^63 - 1",
    "clarid.directions(torch.zeros(1, *shape), [0], seed=-1)": "seed -1 is outside",
    "clarid(data.images([0, 1]), [0, 1], [4, 4])": "indices [4, 4] do not tell 2 images apart",
    "clarid(data.images([0, 1]), [0, 1], [0.5, 1.5])": "indices [0.5, 1.5] do not",
    "clarid(data.images([0, 1]), [0, 1], [True, False])": "indices [True, False] do not",
    "clarid(data.images([0, 1]), [0, 1], [-1, 3])": "indices [-1, 3] do not",
    "clarid(data.images([0, 1]), [0, 1], ['a', 'b'])": "indices hold other things than numbers",
    "clarep.identify(clarid, data, folder / 'c', seed=0.5)": "seed 0.5 is outside 0 to 2^32 - 1",
    "clarep.load_teacher('backdrops', TeacherOptions(device=0))": "`device=0` is of type int",
    "clarep.load_teacher('backdrops', {})": "`options` is a dict: give TeacherOptions",
    "clarep.load_teacher('edm:x', TeacherOptions(class_names=3))": "`class_names=3` is of type int",
    "clarep.identify(clarid, data, folder / 'c', engine=EngineConfig('ray', 3))": "`address=3` is",
    "clarep.identify(clarid, data, folder / 'c', engine=EngineConfig(workers='3'))": "`workers='3'",
    "clarep.identify(clarid, data, folder / 'c', shard_size=0)": "`shard_size=0` is no count",
    "clarep.identify(clarid, data, 3)": "`folder` is a int: give a folder",
    "clarep.identify(clarid, data, folder / 'c', engine='ray')": "`engine` is a str: give",
    "clarep.identify(clarid, mixed, folder / 'c')": "the teacher's classes in another order",
    "clarep.identify(clarid, fewer, folder / 'c')": "are by name others of the teacher's",
    "clarep.auto_setting(teacher, mixed, images=6)": "the teacher's classes in another order",
    "clarep.load_data(3)": "`config` is a int: give a DataConfig",
    "clarep.load_data(DataConfig(classes_file=3))": "`classes_file=3` is of type int",
    "clarep.class_balanced_choice('x', 0.1, seed=0)": "labels are no whole numbers",
    "clarep.class_balanced_choice([], 0.1, seed=0)": "labels are no whole numbers",
    "clarep.class_balanced_choice([[0], [1, 2]], 0.1, seed=0)": "labels are no whole numbers",
    "clarep.class_balanced_choice([0.5, 1.5], 0.1, seed=0)": "labels are no whole numbers",
    "clarep.class_balanced_choice([0, 1], True, seed=0)": "fraction True is outside (0, 1]",
    "clarep.class_balanced_choice([0, 1], None, seed=0)": "fraction None is outside (0, 1]",
    "clarep.compare([folder], 'clean/accuracy')": "`measures='clean/accuracy'` is a str",
    "robustness_suite('t0', data)": "str is no Student: give load_student(folder)",
    "(folder / 'file').touch() or reps.save(folder / 'file')": "is a file: give a folder",
    "robustness_suite(student, data, baseline='/nope')": "`baseline` is a str",
    "called(has_null='no')": "`has_null` is a str: give True or False",
    "clarep.Clarid(teacher, step=3)": "unknown setting 'step': did you mean steps",
    "clarep.doctor(teacher, step=3)": "unknown setting 'step': did you mean steps",
    "clarep.Clarid(teacher, config={})": "`config` is a dict: give a ClaridConfig",
    "clarid.features(torch.zeros(1, *shape), [0], 'nul')": "unknown branch 'nul'",
    "clarep.class_evidence(clarid, torch.zeros(2, *shape), [0, 1], seed=-1)": "seed -1 is outside",
    "clarep.auto_setting(teacher, 'backdrops')": "`data` is a str: give what load_data gives",
    "train(tracker='tensorbord')": "unknown tracker 'tensorbord': did you mean tensorboard",
    "clarid(Image.new('RGB', (8, 8)), ['a'])": "one PIL image: give a list, [image]",
    "clarid([data.images([0])[0]], [0])": "a list with a Tensor: give PIL images, or one tensor",
    "clarep.Clarid(teacher, t='0.6')": "`t='0.6'` is a text: give a number, or 'auto'",
    "clarep.Clarid(teacher, memory_mb=0)": "`memory_mb=0` is not above 0: give a number inside",
    "clarep.push_to_hub(folder / 'nowhere', 'me/mine')": "give the folder of a run, or a bundled",
    "clarep.doctor(teacher, data='backdrops')": "`data` is a str: give what load_data gives",
    "clarep.doctor(net)": "give backdrops, a path, FAMILY:PLACE, or of a model of your own",
    "called(class_names='abc')": "`class_names='abc'` is a str: give a list of names",
    "called(class_names=3)": "`class_names=3` is a int: give a list",
    "clarep.Clarid(cranes, t=0.5, k=1)(data.images([0]), ['a'])": "the name of two classes: give",
    "called(class_names=['a', 3])": "`class_names[1]` is a int: give a name",
    "clarep.Clarid(called(sigma_from_t=lambda t: 4.0), t=0.5, k=1)": "is 4 at t = 0.1 and 4 at t =",
    "clarid(data.images([0]), 'd')": "unknown class 'd'",
    "called(taps=['x'])": "`taps` is a list: give name -> (channels, stride)",
    "called(taps={'x': (3,)})": "taps['x'] (3,) is none: give (channels, stride)",
    "called(taps={'x': (3, 0)})": "taps['x'] (3, 0) is none",
    "called(taps={'x': 3})": "taps['x'] 3 is none",
    "called(taps={'x': (3.0, 1)})": "taps['x'] (3.0, 1) is none",
    "clarep.Clarid(called(taps={'x': (4, 1)}), t=0.5, k=1, steps=1, guidance=1).features("
    "data.images([0]) / 255, [0])": "taps gives it 4 channels: mend it there, and try the",
    "clarep.Clarid(called(sigma_from_t=lambda t: 10 - 9 * t), t=0.5, k=1)": "is 9.1 at t = 0.1 and",
    "clarep.identify(clarid, data, folder / 'c', chosen=[])": "none was chosen: give one",
    "called(default_tap=1)": "`default_tap` is a int",
    "called(null_label='none')": "`null_label` is a str",
    "called(sigma_min='0.01')": "`sigma_min` is a str",
    "called(latent_shape=8)": "`latent_shape` is a int",
    "called(image_shape=8)": "image_shape 8 is none: give (channels, height, width)",
    "called(fingerprint=3)": "`fingerprint` is a int",
    "called(dtype='float32')": "`dtype` is a str",
    "called(denoise=None)": "`denoise` is a NoneType: give a function",
    "called(features=net.forward(data.images([0]).float()))": "`features` is a Tensor",
    "clarep.Clarid('')": "'' names no teacher",
    "clarep.load_data(DataConfig(data='garments', image_size=32.0))": "`image_size=32.0` is no",
    "clarep.load_data(DataConfig(data=None))": "`data=None` is of type NoneType",
    "load_student(folder / 'own.safetensors')": "give `into=Student.from_module(net, ",
    "load_student(folder / 'own.safetensors', into=net)": "`into` is a Sequential",
    "load_student(None)": "`path` is a NoneType",
    "clarep.audit('backdrops', data, folder / 'a')": "`teacher` is a str",
    "clarep.audit(teacher, 'backdrops', folder / 'a')": "`data` is a str",
    "clarep.audit(teacher, data, folder / 'a', {})": "`config` is a dict",
    "clarep.audit(teacher, data, folder / 'a', AuditConfig(rivals='3'))": "`rivals='3'` is no",
    "clarep.audit(teacher, data, folder / 'a', AuditConfig(sigmas=0.25))": "`sigmas=0.25` is",
}  # fmt: skip
ROWS = ("3", "-4", "1.5", "'a'", "[0, 3]", "[0.5]", "None", "True", "{}", "torch.ones(2) > 0")
FINE = {
    "clarid(data.images([0, 1]), [0, 1], np.array([3, 5], np.uint32)).index.tolist()": "[3, 5]",
    "len(clarep.load_data(DataConfig(data=Path('garments'), classes_file=None)))": "5000",
    "clarep.Clarid(called(sigma_from_t=lambda t: 10 - 9 * t), sigma=2.0, k=1).sigma_te": "2.0",
    "TeacherOptions(device=torch.device('cpu')) == TeacherOptions(device='cpu')": "True",
    "called(device=torch.device('cpu')).device": "device(type='cpu')",
    "clarep.load_teacher('backdrops', TeacherOptions(device=torch.device('cpu'))).device": (
        "device(type='cpu')"
    ),
    "called(sigma_min=torch.tensor(0.01)).class_names": "('a', 'b', 'c')",
    "clarep.class_balanced_choice([0, 1, 0, 1], 0.5, seed=0).shape": "(2,)",
    "data": "LabelledImages('made', 24 images of 3 classes)",
    "clarep.load_data(DataConfig())": (
        "Backdrops('backdrops/train/seed=0/correlation=0/original', 5,000 images of 10 classes)"
    ),
    "teacher": "CallableTeacher(3 classes, latents 3x8x8)",
    "len(reps[-1]), len(reps[[]]), len(reps[reps.label > 0]), len(reps[1:9])": "(1, 0, 2, 2)",
    "sum(len(one) for one in reps)": "3",
    "called(latent_shape=[3, 8, 8]).latent_shape": "(3, 8, 8)",
    "SuiteConfig(groups=['clean']) and check_suite(SuiteConfig(groups=['clean']))": "None",
    "load_student(folder / 'own.safetensors', into=student) is student": "True",
    "train(method=giving(lambda ce: {'ce': ce, 'none': ce.detach()})) is not student": "True",
}


@pytest.fixture(scope="module")
def said(programs) -> dict[str, list[str]]:
    calls = [*REFUSED, *(f"reps[{row}]" for row in ROWS), *FINE]
    done = programs.run(SETTING, json.dumps(calls))
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("call", REFUSED)
def test_a_wrong_object_is_named_with_its_mend(said, call):
    kind, text = said[call]
    assert kind == "UserError" and REFUSED[call] in text, text
    assert "give" in text or "leave out" in text or "valid are" in text


@pytest.mark.parametrize("row", ROWS)
def test_a_row_that_there_is_not(said, row):
    kind, text = said[f"reps[{row}]"]
    assert kind == "NoSuchRow" and "names no rows of 3: give a number from -3 to 2" in text


@pytest.mark.parametrize("call", FINE)
def test_what_is_near_it_is_taken(said, call):
    assert said[call] == ["fine", FINE[call]]
