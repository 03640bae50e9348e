"""jobs/submit on a real SLURM cluster of emulated nodes (tests/slurm/cluster): from the submission to the map, and what a cluster does
to a job on its way. Whatever it is, the sweep ends complete, with the bits of one that nothing disturbed."""
from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import h5py
import pytest

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "tests" / "slurm" / "cluster"
PROGRAM = os.environ["SGDMAP"]
VOLATILE = {"wall_time", "rank"}

# Seconds of training on three ranks, saved every tenth of one.
CONFIG = """\
title: a sweep on a cluster
seed: 5
grid: {dimension: [6, 40], step_size: {log: [1.0e-3, 0.1], count: 6}, init_scale: [0, 1], teacher_norm: [0.5, 1.0],
       batch_size: 30, replicates: 3}
training: {steps: STEPS, tolerance: 1.0e-6}
records: {count: 12}
checkpoint: {interval: 0.1}
"""
SHORT, LONG = 4000, 100_000


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, *arguments, timeout=120, check=True) -> str:
        done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=timeout, cwd=self.folder)
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def login(self, *command, check=True) -> str:
        """As on the login node."""
        return self.call(CLUSTER, "exec", self.folder, *command, check=check)

    def submit(self, config: Path, file: Path, *options) -> list[str]:
        shown = self.login(ROOT / "jobs" / "submit", config, "-o", file, "--ranks", 3, "--nodes", 3, "--time", "00:05:00", *options)
        return re.search(r"submitted as job (\d+)(?:, map and report as job (\d+))?", shown).groups()

    def state(self, job: str) -> str:
        shown = self.login("scontrol", "show", "job", job, check=False)
        found = re.search(r"JobState=(\w+)", shown)
        return found[1] if found else "GONE"

    def wait(self, condition, seconds=240) -> None:
        for _ in range(seconds * 2):
            if condition():
                return
            time.sleep(0.5)
        raise AssertionError("it did not come about: " + self.login("squeue", check=False))


@pytest.fixture(scope="module")
def cluster():
    # munge wants its socket below folders that all may enter, and pytest's are private.
    folder = Path(tempfile.mkdtemp(prefix="sgdmap-cluster-"))
    folder.chmod(0o755)
    up = subprocess.run([CLUSTER, "up", folder, "3"], capture_output=True, text=True, timeout=120)
    if up.returncode == 77:
        shutil.rmtree(folder)
        pytest.skip(up.stderr.strip())
    try:
        assert up.returncode == 0, up.stderr
        yield Cluster(folder)
    finally:
        subprocess.run([CLUSTER, "down", folder], check=True, timeout=120)
    assert not processes_with(str(folder))
    shutil.rmtree(folder)


def processes_with(text: str) -> list[int]:
    """Processes in whose command line that text stands, pytest's own family apart."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text in (entry / "cmdline").read_text() and b"pytest" not in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass  # it has gone
    return found


def ranks_of(file: Path) -> list[int]:
    """The ranks that train into that file."""
    return [pid for pid in processes_with(f" -o {file}".replace(" ", "\0"))
            if Path(f"/proc/{pid}/exe").resolve() == Path(PROGRAM).resolve()]


def contents(path: Path) -> dict:
    ret = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: ret.__setitem__(name, item[()].tobytes())
                        if isinstance(item, h5py.Dataset) and name not in VOLATILE else None)
    return ret


def make(cluster: Cluster, name: str, steps: int) -> tuple[Path, Path]:
    config = cluster.folder / f"{name}.yaml"
    config.write_text(CONFIG.replace("STEPS", str(steps)))
    return config, cluster.folder / f"{name}.h5"


def assert_as_undisturbed(cluster: Cluster, config: Path, file: Path) -> None:
    alone = cluster.folder / f"{config.stem}-alone.h5"
    subprocess.run([PROGRAM, "run", config, "-o", alone], check=True, capture_output=True, timeout=300)
    assert contents(file) == contents(alone)


@pytest.mark.parametrize("launcher", ["srun", "mpirun"])
def test_from_the_submission_to_the_map(cluster, launcher):
    config, file = make(cluster, f"short-{launcher}", SHORT)
    job, analysis = cluster.submit(config, file, "--launcher", launcher)
    cluster.wait(lambda: cluster.state(analysis) in ("COMPLETED", "FAILED", "CANCELLED", "GONE"))
    assert cluster.state(job) == "COMPLETED" and cluster.state(analysis) == "COMPLETED", file.with_suffix(".h5.log").read_text()
    assert file.with_suffix(".png").stat().st_size > 5000 and file.with_suffix(".html").stat().st_size > 100_000
    assert_as_undisturbed(cluster, config, file)


@pytest.mark.parametrize("launcher, fault", [("srun", "rank"), ("mpirun", "rank"), ("srun", "requeue"), ("srun", "scancel")])
def test_a_job_that_is_disturbed(cluster, launcher, fault):
    config, file = make(cluster, f"{fault}-{launcher}", LONG)
    job, _ = cluster.submit(config, file, "--launcher", launcher, "--no-analysis")
    folder = file.with_name(file.name + ".checkpoints")
    cluster.wait(lambda: folder.exists() and any(folder.glob("*.checkpoint")) and len(ranks_of(file)) >= 3)
    if fault == "rank":
        os.kill(ranks_of(file)[-1], signal.SIGKILL)
    elif fault == "requeue":
        cluster.login("scontrol", "requeue", job)
    else:
        cluster.login("scancel", job)
        cluster.wait(lambda: cluster.state(job) in ("CANCELLED", "GONE") and not ranks_of(file))
        assert file.exists()
        job, _ = cluster.submit(config, file, "--launcher", launcher, "--no-analysis")
    cluster.wait(lambda: cluster.state(job) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "GONE"))
    log = file.with_suffix(".h5.log").read_text()
    assert cluster.state(job) == "COMPLETED", log
    assert "were taken up from checkpoints" in log, log
    assert_as_undisturbed(cluster, config, file)
