"""CPU seconds until each command has answered --help, a wrong flag, or a missing file.

    python benchmarks/command_line.py

Nothing slow may be imported for that: the bound is 0.5 s. Exits with 1 where one takes longer.
"""

import resource
import subprocess
import sys

BOUND = 0.5
WORDS = {
    "demo": ["--config", "nowhere.py"],
    "convert official": ["--unet", "nowhere.ckpt", "--out", "out"],
    "convert stable-diffusion": ["--from", "nowhere", "--out", "out"],
    "convert export": ["nowhere", "--to", "official", "--out", "out"],
    "sample": ["--weights", "nowhere", "--references", "nowhere.jpg", "--prompt", "x"],
    "curate": ["--photos", "nowhere", "--out", "out"],
    "data draw": ["sheet", "--out", "/proc/nowhere/sheet.png"],
    "data build": ["--source", "nowhere", "--out", "out"],
    "data inspect": ["nowhere"],
    "data remove": ["nowhere", "--list", "nowhere.txt"],
    "data precompute": ["--weights", "nowhere", "--dataset", "nowhere", "--out", "out"],
    "plan": ["--config", "nowhere.py", "--topology", "v5e:4x4"],
    "train": ["--config", "nowhere.py", "--workdir", "out"],
}


def cpu_seconds(words: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "flashface_jax", *words]
    subprocess.run(command, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    slowest = 0.0
    print(f"{'':26}{'--help':>10}{'flag':>10}{'file':>10}")
    for name, missing in WORDS.items():
        words = name.split()
        tried = [["--help"], [*missing, "--nope"], missing]
        seconds = [min(cpu_seconds([*words, *more]) for _ in range(3)) for more in tried]
        print(f"{name:26}" + "".join(f"{one:10.2f}" for one in seconds))
        slowest = max(slowest, *seconds)
    print(f"slowest {slowest:.2f} s, bound {BOUND} s")
    return int(slowest > BOUND)


if __name__ == "__main__":
    sys.exit(main())
