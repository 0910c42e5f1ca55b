"""Other Pythons and torches, and the wheel as a stranger installs it: `pipx run nox` (hours, GBs).

nox -s wheel             the wheel in a bare environment: clarep demo --quick, ten lines of Python
nox -s tests-3.12        the whole suite; 3.10 and 3.13 likewise
nox -s lowest            the oldest torch that we support
"""

import nox

PYTHONS = ["3.10", "3.12", "3.13"]
TEN_LINES = """
import clarep
data = clarep.load_data(clarep.DataConfig(data="backdrops"))
reps = clarep.Clarid("backdrops", t=0.6, k=8)(data.images([0, 1, 2]), data.labels[:3])
print(reps)
reps.figure().savefig("reps.png")
"""


@nox.session
def wheel(session: nox.Session) -> None:
    """Build both distributions; install clarep's wheel with its core dependencies alone; use it."""
    session.install("build")
    out = session.create_tmp()
    session.run("python", "-m", "build", "--outdir", out)
    session.run("python", "-m", "build", "--wheel", "--outdir", out, "weights")
    session.run("python", "-m", "pip", "install", "--find-links", out, "clarep")
    session.chdir(out)
    session.run("clarep", "demo", "--quick", "--out", "quick")
    session.run("python", "-c", TEN_LINES)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite with the newest of everything."""
    session.install("-e", ".[dev]", "-e", "./weights")
    session.run("pytest", "-q", "-n", "auto", env={"OMP_NUM_THREADS": "1"})


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The suite with the oldest torch."""
    session.install("-e", ".[dev]", "-e", "./weights", "torch==2.4.*", "torchvision==0.19.*")
    session.run("pytest", "-q", "-n", "auto", env={"OMP_NUM_THREADS": "1"})
