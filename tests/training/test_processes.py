"""What several processes agree on."""

import subprocess
import sys

from flashface_jax.training.parallel.processes import total
from tests.training import commands

ADD_UP = """
import sys
from flashface_jax.training.parallel.processes import join, total
import jax
join(sys.argv[1], 2, int(sys.argv[2]))
print(total(jax.process_index() + 1))
"""


def test_a_process_that_is_alone_counts_its_own():
    assert total(5) == 5


def test_counts_of_all_processes_are_added_up():
    where = f"127.0.0.1:{commands.free_port()}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ADD_UP, where, str(process)],
            env=commands.environment(1),
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [lines.splitlines()[-1] for lines in said] == ["3", "3"]  # Gloo says that it connects
