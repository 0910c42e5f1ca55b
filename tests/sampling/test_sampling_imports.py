import subprocess
import sys


def test_importing_sampling_is_light():
    code = (
        "import sys, clarep.sampling.ode;"
        "print([m for m in ('matplotlib','sklearn','skimage','torchvision','scipy',"
        "'clarep.teachers') if m in sys.modules], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"
