"""jobs/submit on a real SLURM cluster of emulated nodes (tests/slurm/cluster): from the submission to the map, and what a cluster does
to a job on its way. Whatever it is, the sweep ends complete, with the bits of one that nothing disturbed. SGDMAP_ALL_FAULTS=1 takes
each fault by both launchers."""
from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from results import assert_same

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "tests" / "slurm" / "cluster"
PROGRAM = os.environ["SGDMAP"]

# Seconds of training on three ranks, saved every tenth of one; groups of about the same length, so that some rank is always in one.
CONFIG = """\
title: a sweep on a cluster
seed: 5
grid: {dimension: [36, 40], step_size: {log: [1.0e-3, 0.1], count: 6}, init_scale: [0, 1], teacher_norm: [0.5, 1.0],
       batch_size: 30, replicates: 3}
training: {steps: STEPS, tolerance: 1.0e-6}
records: {count: 12}
checkpoint: {interval: 0.1}
"""
SHORT, LONG = 2000, 32_000


# The jobs of the second may take nodes from those of the first.
PARTITIONS = ["PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20",
              "PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10"]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "GONE")
NODES = 4


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lost: list[str] = []
        self.unplugged: list[str] = []

    def call(self, *arguments, timeout=120, check=True) -> str:
        done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=timeout, cwd=self.folder)
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def login(self, *command, check=True) -> str:
        """As on the login node."""
        # The job's script says itself what its launcher needs.
        return self.call(CLUSTER, "exec", self.folder, "env", "-u", "PMIX_MCA_gds", *command, check=check)

    def ask(self, *command) -> str:
        """The same without a shell's start, for questions that are asked again and again; '' where SLURM does not answer."""
        head = (self.folder / "head").read_text().split()[0]
        return self.call("nsenter", "--target", head, "--net", "--uts", "--mount", "--pid", "--", "env",
                         f"SLURM_CONF={self.folder}/slurm.conf", *command, check=False)

    def submit(self, config: Path, file: Path, *options, nodes=3, program=PROGRAM) -> list[str]:
        shown = self.login("env", f"SGDMAP={program}", ROOT / "jobs" / "submit", config, "-o", file, "--ranks", 3, "--nodes", nodes,
                           "--time", "00:05:00", *options)
        return re.search(r"submitted as job (\d+)(?:, .*map and report as job (\d+))?", shown).groups()

    def state(self, job: str) -> str:
        shown = self.ask("scontrol", "show", "job", job)
        found = re.search(r"JobState=(\w+)", shown)
        return found[1] if found else "UNKNOWN" if shown else "GONE"

    def nodes(self, job: str) -> list[str]:
        """Where it runs; the first is that of its script."""
        shown = self.login("scontrol", "show", "job", job)
        batch = re.search(r" BatchHost=(\w+)", shown)[1]
        names = self.login("scontrol", "show", "hostnames", re.search(r"\n +NodeList=(\S+)", shown)[1]).split()
        return [batch, *(name for name in names if name != batch)]

    def wait(self, condition, seconds=240) -> None:
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if condition():
                return
            time.sleep(0.5)
        logs = "".join(f"== {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in sorted((self.folder / "log").iterdir()))
        raise AssertionError("it did not come about: " + self.login("squeue", check=False) + logs)

    def wait_for_end(self, job: str) -> None:
        self.wait(lambda: self.state(job) in ENDED)

    def wait_for_checkpoints(self, file: Path, ranks=3) -> None:
        folder = file.with_name(file.name + ".checkpoints")
        self.wait(lambda: folder.exists() and any(folder.glob("*.checkpoint")) and len(ranks_of(file)) >= ranks)

    def lose(self, node: str) -> None:
        self.call(CLUSTER, "kill", self.folder, node)
        self.lost.append(node)

    def cut(self, node: str) -> None:
        self.call(CLUSTER, "cut", self.folder, node)
        self.unplugged.append(node)

    def mend(self) -> None:
        """Brings all nodes back, for the next test."""
        for node in self.unplugged:
            self.call(CLUSTER, "heal", self.folder, node)
        for node in self.lost:
            self.call(CLUSTER, "start", self.folder, node)
        self.unplugged, self.lost = [], []
        self.wait(lambda: len(set(self.ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%n").split())) == NODES)


@pytest.fixture(scope="module")
def whole_cluster():
    # munge wants its socket below folders that all may enter, and pytest's are private.
    folder = Path(tempfile.mkdtemp(prefix="sgdmap-cluster-"))
    folder.chmod(0o755)
    up = subprocess.run([CLUSTER, "up", folder, str(NODES), *PARTITIONS], capture_output=True, text=True, timeout=120,
                        env={**os.environ, "SGDMAP_CLUSTER_OWNER": str(os.getpid())})
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


@pytest.fixture
def cluster(whole_cluster):
    yield whole_cluster
    whole_cluster.login("scancel", "--user=root", check=False)
    whole_cluster.mend()


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


def launched(file: Path) -> list[int]:
    """Launchers and ranks that have that file as their output."""
    return processes_with(f" -o {file}".replace(" ", "\0"))


def ranks_of(file: Path) -> list[int]:
    """The ranks that train into that file."""
    found = []
    for pid in launched(file):
        try:
            if Path(f"/proc/{pid}/exe").resolve() == Path(PROGRAM).resolve():
                found.append(pid)
        except OSError:
            pass  # it has gone
    return found


def make(cluster: Cluster, name: str, steps: int) -> tuple[Path, Path]:
    config = cluster.folder / f"{name}.yaml"
    config.write_text(CONFIG.replace("STEPS", str(steps)))
    return config, cluster.folder / f"{name}.h5"


def log_of(file: Path) -> str:
    log = file.with_name(file.name + ".log")
    return log.read_text() if log.exists() else ""


@pytest.fixture(scope="session")
def assert_as_undisturbed(tmp_path_factory):
    """(config, file): the file has the bits of the same sweep by one process, which is trained once for all tests."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def check(config: Path, file: Path) -> None:
        alone = folder / f"undisturbed-{hashlib.sha256(config.read_bytes()).hexdigest()[:16]}.h5"
        with open(f"{alone}.waiting", "w") as waiting:
            fcntl.flock(waiting, fcntl.LOCK_EX)
            subprocess.run([PROGRAM, "run", config, "-o", alone], check=True, capture_output=True, timeout=300)
        assert_same(file, alone)

    return check


@pytest.mark.parametrize("launcher", ["srun", "mpirun"])
def test_from_the_submission_to_the_map(cluster, assert_as_undisturbed, launcher):
    config, file = make(cluster, f"short-{launcher}", SHORT)
    job, analysis = cluster.submit(config, file, "--launcher", launcher)
    cluster.wait_for_end(analysis)
    assert cluster.state(job) == "COMPLETED" and cluster.state(analysis) == "COMPLETED", log_of(file)
    assert file.with_suffix(".png").stat().st_size > 5000 and file.with_suffix(".html").stat().st_size > 100_000
    assert_as_undisturbed(config, file)


# -- Faults: each brings a job of three ranks on three of four nodes from one start to another -------------------------------


def kill_a_rank(cluster, job, file):
    os.kill(ranks_of(file)[-1], signal.SIGKILL)


def lose_the_batch_node(cluster, job, file):
    cluster.lose(cluster.nodes(job)[0])


def lose_another_node(cluster, job, file):
    cluster.lose(cluster.nodes(job)[-1])


def cut_a_link(cluster, job, file):
    cluster.cut(cluster.nodes(job)[-1])


def requeue(cluster, job, file):
    cluster.login("scontrol", "requeue", job)


def cancel(cluster, job, file):
    cluster.login("scancel", job)
    cluster.wait(lambda: cluster.state(job) in ("CANCELLED", "GONE") and not ranks_of(file))


def preempt(cluster, job, file):
    """A job of a partition that may take the nodes from ours, after a time of grace."""
    cluster.login("sbatch", "--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    cluster.wait(lambda: cluster.state(job) == "PENDING")


def reach_the_limit(cluster, job, file):
    """The ranks pause, for the limit to be near before they are through."""
    pids = ranks_of(file)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    cluster.wait(lambda: "received SIGUSR1" in log_of(file))
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


FAULTS = {"rank": kill_a_rank, "batch-node": lose_the_batch_node, "node": lose_another_node, "link": cut_a_link, "requeue": requeue,
          "scancel": cancel, "preemption": preempt, "limit": reach_the_limit}


# Each by one launcher in CI, by both with SGDMAP_ALL_FAULTS=1.
BY_MPIRUN = ("rank", "node", "limit", "slurmctld")


def by_launchers(faults) -> list[tuple[str, str]]:
    """(launcher, fault)"""
    everything = [(launcher, fault) for fault in faults for launcher in ("srun", "mpirun")]
    if "SGDMAP_ALL_FAULTS" in os.environ:
        return everything
    return [(launcher, fault) for launcher, fault in everything if (launcher == "mpirun") == (fault in BY_MPIRUN)]


@pytest.mark.parametrize("launcher, fault", by_launchers(FAULTS))
def test_a_job_that_is_disturbed(cluster, assert_as_undisturbed, launcher, fault):
    config, file = make(cluster, f"{fault}-{launcher}", LONG)
    options = ["--launcher", launcher, "--no-analysis", *(["--time", "00:01:00"] if fault == "limit" else [])]
    job, _ = cluster.submit(config, file, *options)
    cluster.wait_for_checkpoints(file)
    FAULTS[fault](cluster, job, file)
    if fault == "scancel":
        assert file.exists()
        job, _ = cluster.submit(config, file, *options)
    cluster.wait_for_end(job)
    log = log_of(file)
    print(log)
    assert cluster.state(job) == "COMPLETED", log
    if fault == "rank":
        assert "the ranks are started again, on the same nodes" in log and "complete after 1 starts" in log, log
    elif fault != "scancel":
        assert re.search(r"start 2 \(SLURM_RESTART_COUNT=1\)", log), log
    # The ranks that a cut link leaves behind may have been through in the meantime.
    assert "were taken up from checkpoints" in log or fault == "link", log
    assert_as_undisturbed(config, file)
    assert [p.name for p in cluster.folder.glob(f"{file.name}*.starts")] == []


@pytest.mark.parametrize("launcher, daemon", by_launchers(["slurmctld", "slurmd"]))
def test_a_daemon_that_is_restarted(cluster, assert_as_undisturbed, launcher, daemon):
    """A job does not notice; but a controller that dies before it has written down that the job runs starts it a second time."""
    config, file = make(cluster, f"{daemon}-{launcher}", LONG)
    job, _ = cluster.submit(config, file, "--launcher", launcher, "--no-analysis")
    cluster.wait_for_checkpoints(file)
    for what in ["slurmctld"] if daemon == "slurmctld" else [f"slurmd:{node}" for node in cluster.nodes(job)]:
        cluster.call(CLUSTER, "kill", cluster.folder, what)
        cluster.call(CLUSTER, "start", cluster.folder, what)
    cluster.wait_for_end(job)
    log = log_of(file)
    assert cluster.state(job) == "COMPLETED", log
    assert "complete after 1 starts" in log or log.count("start 1 (SLURM_RESTART_COUNT=0)") > 1, log
    assert_as_undisturbed(config, file)


def test_a_signal_before_the_ranks_are_there(cluster, assert_as_undisturbed):
    """They get it when they are."""
    program = cluster.folder / "slow-to-start"
    program.write_text(f"#!/bin/sh\ntrap '' USR1\n[ \"$1\" != run ] || sleep 5\nexec {PROGRAM} \"$@\"\n")
    program.chmod(0o755)
    config, file = make(cluster, "early", LONG)
    job, _ = cluster.submit(config, file, "--launcher", "mpirun", "--no-analysis", program=program)
    cluster.wait(lambda: launched(file))
    assert not ranks_of(file)
    cluster.login("scancel", "--signal=USR1", "--batch", job)
    cluster.wait_for_end(job)
    log = log_of(file)
    assert cluster.state(job) == "COMPLETED" and "received SIGUSR1" in log and "start 2 (SLURM_RESTART_COUNT=1)" in log, log
    assert_as_undisturbed(config, file)


def test_no_progress_is_bounded(cluster):
    """A program that is always interrupted."""
    program = cluster.folder / "interrupted"
    program.write_text(f'#!/bin/sh\n[ "$1" != run ] || exit 75\nexec {PROGRAM} "$@"\n')
    program.chmod(0o755)
    config, file = make(cluster, "bounded", SHORT)
    job, analysis = cluster.submit(config, file, "--max-restarts", 1, program=program)
    cluster.wait_for_end(job)
    log = log_of(file)
    # Of the others, to whom srun sends SIGTERM after the first, this program makes 143.
    status = re.search(r"no progress in 2 starts: giving up with status (75|143)\.", log)
    assert status and log.count(": start ") == 2, log
    assert cluster.state(job) == "FAILED" and f"ExitCode={status[1]}:0" in cluster.login("scontrol", "show", "job", job), log
    cluster.wait(lambda: cluster.state(analysis) in ("CANCELLED", "GONE"))  # it would wait for ever


def test_an_array_of_shards(cluster, assert_as_undisturbed):
    """Three jobs with a file each, one of which is disturbed, and one file in the end."""
    config, file = make(cluster, "array", LONG)
    job, merge = cluster.submit(config, file, "--ranks", 2, "--array", 3, nodes=1)
    shard = file.with_name("array-shard1.h5")
    cluster.wait_for_checkpoints(shard, ranks=2)
    cluster.login("scontrol", "requeue", f"{job}_1")
    cluster.wait_for_end(merge)
    log = log_of(shard)
    assert cluster.state(merge) == "COMPLETED", log + file.with_suffix(".h5.analysis.log").read_text()
    assert "complete after 2 starts" in log, log
    assert file.with_suffix(".png").exists() and file.with_suffix(".html").exists()
    assert_as_undisturbed(config, file)


def test_two_jobs_on_one_file(cluster):
    """The second is refused, with the first's number and host, by jobs/submit, by sgdmap, and by a job."""
    config, file = make(cluster, "owned", LONG)
    job, _ = cluster.submit(config, file, "--no-analysis")
    cluster.wait_for_checkpoints(file)
    for pid in ranks_of(file):
        os.kill(pid, signal.SIGSTOP)
    host = cluster.nodes(job)[0]
    with pytest.raises(AssertionError, match=f"job {job} is on it already"):
        cluster.submit(config, file, "--no-analysis")
    by_hand = f"job {job},"
    with pytest.raises(AssertionError, match=rf"(?s)another job is writing it: process \d+ on host {host}, SLURM {by_hand}"):
        cluster.login(PROGRAM, "run", config, "-o", file)
    second = cluster.login("sbatch", "--parsable", f"--output={cluster.folder}/second.log",
                           f"--wrap=exec mpirun -n 1 {PROGRAM} run {config} -o {file}").strip()
    cluster.wait_for_end(second)
    refused = (cluster.folder / "second.log").read_text()
    assert cluster.state(second) == "FAILED" and f"on host {host}, SLURM job {job}," in refused, refused
    cluster.login("scancel", job)
    cluster.wait(lambda: not ranks_of(file))


def test_a_cluster_does_not_outlive_its_owner(whole_cluster):
    """As when a test run is killed."""
    folder = Path(tempfile.mkdtemp(prefix="sgdmap-cluster-"))
    folder.chmod(0o755)
    with subprocess.Popen(["sleep", "1000"]) as owner:
        subprocess.run([CLUSTER, "up", folder, "1"], check=True, timeout=120, capture_output=True,
                       env={**os.environ, "SGDMAP_CLUSTER_OWNER": str(owner.pid)})
        assert processes_with(str(folder))
        owner.kill()
    for _ in range(300):
        if not processes_with(str(folder)):
            break
        time.sleep(0.1)
    assert not processes_with(str(folder))
    shutil.rmtree(folder)


# -- Arguments: no cluster is needed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, text", [
    ((), "the CONFIG is missing"),
    (("CONFIG", "CONFIG"), "one CONFIG is expected"),
    (("nowhere.yaml",), "nowhere.yaml"),
    (("CONFIG", "--ranks", "0"), "--ranks: 0 is not in [1, "),
    (("CONFIG", "--ranks", "two"), "--ranks: two is not in [1, "),
    (("CONFIG", "--ranks"), "--ranks wants a value"),
    (("CONFIG", "--nodes", "3", "--ranks", "2"), "2 ranks cannot be spread over --nodes 3"),
    (("CONFIG", "--array", "1"), "--array: 1 is not in [2, "),
    (("CONFIG", "--array", "500", "--ranks", "1"), "--array: 500 is more than the 12 groups"),
    (("CONFIG", "--time", "soon"), "--time: soon is not a time"),
    (("CONFIG", "--time", "0:30"), "--time: 0:30 is not a time of a minute or more"),
    (("CONFIG", "--partition", "a b"), "a b: not the name of a partition"),
    (("CONFIG", "--launcher", "ssh"), "--launcher: ssh is neither srun nor mpirun"),
    (("CONFIG", "--max-restarts", "-1"), "--max-restarts: -1 is not in [0, "),
    (("CONFIG", "--environment", "none.sh"), "--environment: none.sh: there is no such file"),
    (("CONFIG", "--scratch", "none"), "--scratch: none: there is no such folder"),
    (("CONFIG", "--fast"), "--fast: unknown option"),
    (("CONFIG", "--dry-run=yes"), "--dry-run: takes no value"),
    (("CONFIG", "--", "--array=0-3"), "-- --array=0-3: all of the array would write one file"),
    (("CONFIG", "-o", "."), "is a folder"),
    (("CONFIG", "-o", 'a"b.h5'), "sbatch cannot take names with quotes"),
    (("CONFIG", "--set", "grid.replicates=0"), "--set grid.replicates=0"),
])
def test_bad_arguments(tmp_path, arguments, text):
    config = tmp_path / "sweep.yaml"
    config.write_text(CONFIG.replace("STEPS", "100"))
    done = subprocess.run([ROOT / "jobs" / "submit", *(str(config) if a == "CONFIG" else a for a in arguments)], capture_output=True,
                          text=True, cwd=tmp_path, timeout=60, env={**os.environ, "SGDMAP": PROGRAM})
    assert done.returncode == (74 if "nowhere.yaml" in arguments else 2) and text in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.yaml"]


def dry_run(folder: Path, *options, programs: dict | None = None) -> tuple[str, list[str]]:
    """(what is told, [scripts]) on a machine whose only commands of SLURM and Open MPI are `programs`, {name: shell text}."""
    config = folder / "sweep.yaml"
    config.write_text(CONFIG.replace("STEPS", "100"))
    commands = folder / "bin"
    commands.mkdir()
    for name in ("bash", "sed", "awk", "realpath", "basename", "dirname", "cat", "grep", "env", "sort", "tr", "sh", "head"):
        (commands / name).symlink_to(shutil.which(name))
    for name, text in (programs or {}).items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    shown = subprocess.run([ROOT / "jobs" / "submit", config, "--dry-run", *options], capture_output=True, text=True, cwd=folder,
                           timeout=60, check=True, env={"SGDMAP": PROGRAM, "PATH": str(commands), "BASH_FUNC_module%%": "() { :; }"}).stdout
    assert sorted(p.name for p in folder.iterdir()) == ["bin", "sweep.yaml"]
    told, *scripts = re.split(r"\n-- .*\n", shown)
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    return told, scripts


def test_a_dry_run_writes_nothing_and_its_scripts_are_sound(tmp_path):
    told, scripts = dry_run(tmp_path, "-o", "a folder/sweep.h5", "--ranks", "4", "--nodes", "2", "--time", "2:00:00", "--partition", "long",
                            "--account=theory", "--array", "3", "--module", "hdf5/1.14", "--module=openmpi", "--any-kernels", "--", "--qos=high",
                            "--mail-type", "END")
    assert "options=(--any-kernels --shard \"$SLURM_ARRAY_TASK_ID/3\")\n" in scripts[0]
    assert "--overwrite --any-kernels \"$stem\"-shard{0..2}.h5" in scripts[1]
    assert "3 shards of 4 ranks" in told and len(scripts) == 2
    for line in ("--ntasks=4", "--nodes=2", "--time=2:00:00", "--partition=long", "--account=theory", "--qos=high", "--mail-type END",
                 "--array=0-2", "--open-mode=append", "--requeue"):
        assert f"#SBATCH {line}\n" in scripts[0], line
    for line in ("--partition=long", "--account=theory", "--qos=high"):
        assert f"#SBATCH {line}\n" in scripts[1], line
    for script in scripts:
        assert "module load hdf5/1.14\nmodule load openmpi\n" in script


PMIX = {"srun": 'echo "MPI plugin types are..."; echo none; echo pmi2; echo pmix', "ompi_info": "echo MCA pmix: ext3x"}


@pytest.mark.parametrize("programs, launcher, why", [
    (PMIX, "srun", "SLURM and Open MPI both have PMIx"),
    ({}, "mpirun", "there is no srun here"),
    ({**PMIX, "srun": "echo none; echo pmi2"}, "mpirun", "SLURM has no PMIx here"),
    ({"srun": PMIX["srun"]}, "mpirun", "no Open MPI of which to know"),
    ({**PMIX, "ompi_info": "echo MCA pmix: isolated"}, "mpirun", "this Open MPI has no PMIx"),
])
def test_the_launcher_is_found_out(tmp_path, programs, launcher, why):
    told, scripts = dry_run(tmp_path, "--ranks", "2", programs=programs)
    assert f"launcher  {launcher} ({why}" in told and f"launch=({launcher} " in scripts[0]


def test_ranks_and_limit_are_proposed(tmp_path):
    """Of a partition of nodes of 8 cores with a limit of 10 min: whole nodes, not above the limit."""
    sinfo = {"sinfo": 'echo "long* 1 8 4 10:00"; echo "other 2 64 100 1-00:00:00"'}
    told, scripts = dry_run(tmp_path, "--set", "training.steps=3000000000", "--set", "grid.replicates=100", programs=sinfo)
    ranks = int(re.search(r"#SBATCH --ntasks=(\d+)\n", scripts[0])[1])
    assert ranks % 8 == 0 and 8 <= ranks <= 32 and "#SBATCH --time=0-00:10:00\n" in scripts[0]
    assert re.search(r"predicted, limit 0-00:10:00: about \d+ starts", told)
