import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from limbeck.models.memory import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        bytes(24_000_000).find(1)  # taken, read and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_what_is_freed_serves_again_without_a_page_from_the_system() -> None:
    before, after = map(int, subprocess.check_output([sys.executable, "-c", FAULTS], text=True).split())
    assert before > 8 * 500
    assert after < 100
