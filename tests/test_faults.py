"""What a machine does to a sweep that runs for days: kills, signals, full disks, files that go away. Whatever happens, the same
command brings the sweep to the same end, bit for bit.

SGDMAP_KILLS=1000 makes the storm longer than the 16 kills of a test run; SGDMAP_ALL_FAULTS=1 takes every place of the protocol
instead of a sample. Under the sanitizers there is less of both.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import pytest
import xarray

from results import assert_same

PROGRAM = os.environ["SGDMAP"]
WITH_FAULTS = os.environ["SGDMAP_FAULTS"]
ALL_FAULTS = "SGDMAP_ALL_FAULTS" in os.environ
SLOW = 10 if "libasan" in subprocess.run(["ldd", PROGRAM], capture_output=True, text=True).stdout else 1
KILLS = int(os.environ.get("SGDMAP_KILLS", "16" if SLOW == 1 else "4"))

# Groups of three tenths of a second and more, saved every tenth.
CONFIG = """\
title: a sweep to be disturbed
seed: 5
grid:
  dimension: [6, 40]
  step_size: {log: [1.0e-3, 0.1], count: 6}
  init_scale: [0, 1]
  teacher_norm: [0.5, 1.0]
  batch_size: [30]
  replicates: 3
training: {steps: STEPS, tolerance: 1.0e-6}
records: {count: 12}
output: {weights: final}
checkpoint: {interval: 0.1}
""".replace("STEPS", str(8000 // SLOW))
RUNS = 2 * 6 * 2 * 2 * 3


def command(*arguments, ranks=None, program=PROGRAM):
    mpirun = [] if ranks is None else ["mpirun", "--oversubscribe", "-n", str(ranks)]
    return [*mpirun, program, *map(str, arguments)]


def sgdmap(*arguments, ranks=None, program=PROGRAM, environment=None, timeout=300):
    return subprocess.run(command(*arguments, ranks=ranks, program=program), capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(environment or {})})


def assert_sound(path):
    """As anyone may find it: verify passes, and the readers that people use open it."""
    result = sgdmap("verify", path)
    assert result.returncode == 0, result.stdout + result.stderr
    with h5py.File(path, "r") as file:
        assert file["status"].shape == file["checksum"].shape
    with xarray.open_dataset(path) as data:
        data.status.load()


def assert_nothing_left(path):
    left = [p.name for p in path.parent.iterdir() if p.name.startswith((path.name + ".", "." + path.name))]
    assert not left, left


def done_runs(path):
    with h5py.File(path, "r") as file:
        return int((file["status"][:] > 1).sum())


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "disturbed.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    (folder / "disturbed.yaml").write_text(CONFIG)
    result = sgdmap("run", folder / "disturbed.yaml", "-o", folder / "whole.h5")
    assert result.returncode == 0, result.stderr
    assert_nothing_left(folder / "whole.h5")
    return folder / "whole.h5"


def start(*arguments, ranks=None, **popen):
    return subprocess.Popen(command("run", *arguments, ranks=ranks), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True, **popen)


def ranks_of(process):
    """The processes of the program below it, or itself: rank by rank."""
    found = {}
    children = subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True).stdout.split()
    for pid in {process.pid, *map(int, children)}:
        try:
            if Path(f"/proc/{pid}/exe").resolve() == Path(PROGRAM).resolve():
                variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                rank = next((v.split(b"=")[1] for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")), b"0")
                found[int(rank)] = pid
        except OSError:
            pass  # it has gone
    return [found[rank] for rank in sorted(found)]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, process, seconds=60):
    for _ in range(seconds * 100):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("it did not come about")


def checkpoints(path):
    folder = path.with_name(path.name + ".checkpoints")
    return sorted(folder.glob("*.checkpoint")) if folder.exists() else []


def kill_everything(process):
    """As when a node dies: nobody has time for anything."""
    for pid in [process.pid, *ranks_of(process)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.communicate(timeout=60)


# -- Checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks, then", [(None, 2), (2, None), (2, 3)])
def test_a_killed_job_goes_on_inside_its_groups(reference, config, tmp_path, ranks, then):
    path = tmp_path / "killed.h5"
    interrupted(config, path, ranks=ranks)
    result = sgdmap("run", config, "-o", path, ranks=then)
    assert result.returncode == 0, result.stderr
    assert "were taken up from checkpoints" in result.stdout and "warning" not in result.stderr
    assert_same(reference, path)
    assert_nothing_left(path)


def interrupted(config, path, *, ranks=None):
    """A job killed while a checkpoint was there, which its group may outlive by an instant: then the next one."""
    for _ in range(20):
        process = start(config, "-o", path, ranks=ranks)
        wait_until(lambda: checkpoints(path), process)
        kill_everything(process)
        if checkpoints(path):
            return checkpoints(path)[0]
    raise AssertionError("no checkpoint outlived its job")


@pytest.mark.parametrize("what", ["damaged", "cut", "empty", "folder", "unreadable", "other program", "other kernels"])
def test_a_checkpoint_that_is_no_use(reference, config, tmp_path, what):
    path = tmp_path / "odd.h5"
    checkpoint = interrupted(config, path)
    raw = bytearray(checkpoint.read_bytes())
    message, environment, user = "damaged", {}, []
    if what == "damaged":
        raw[-100] ^= 1
        checkpoint.write_bytes(raw)
    elif what == "cut":
        checkpoint.write_bytes(raw[:-8])
    elif what == "empty":
        checkpoint.write_bytes(b"")
        message = "not a checkpoint"
    elif what == "folder":
        checkpoint.unlink()
        checkpoint.mkdir()
        message = "directory"
    elif what == "unreadable":
        if os.geteuid() != 0:
            checkpoint.chmod(0)
        else:  # root reads everything
            tmp_path.chmod(0o777)
            for p in tmp_path.rglob("*"):
                shutil.chown(p, "nobody")
            shutil.chown(checkpoint, "root")
            checkpoint.chmod(0o600)
            user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            for parent in tmp_path.parents:
                if parent != Path("/") and parent != Path("/tmp"):
                    parent.chmod(parent.stat().st_mode | 0o5)
        message = "Permission denied"
    elif what == "other program":
        checkpoint.write_bytes(bytes(raw).replace(b"sgdmap 0.1.0", b"sgdmap 0.0.9"))
    elif what == "other kernels":
        # Written by kernels that are not ours: the checksum is right.
        environment = {"BLIS_ARCH_TYPE": "25"}
        first = sgdmap("run", config, "-o", tmp_path / "probe.h5", "--set", "training.steps=1", "--set", "records.count=2",
                       environment=environment)
        with h5py.File(tmp_path / "probe.h5") as probe, h5py.File(reference) as ours:
            if first.returncode != 0 or probe.attrs["blis_kernels"] == ours.attrs["blis_kernels"]:
                pytest.skip("this CPU has one family of kernels")
        checkpoint.unlink()
        process = start(config, "-o", path, "--any-kernels", env={**os.environ, **environment})
        wait_until(lambda: checkpoints(path), process)
        kill_everything(process)
        environment, message = {}, "kernels"
    result = subprocess.run([*user, *command("run", config, "-o", path, "--any-kernels")], capture_output=True, text=True,
                            env={**os.environ, **environment}, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "warning" in result.stderr and message in result.stderr, result.stderr
    if what != "other kernels":
        assert_same(reference, path)
    if what not in ("folder", "unreadable"):
        assert_nothing_left(path)


def test_checkpoints_of_a_file_that_is_gone_are_not_taken_up(reference, config, tmp_path):
    path = tmp_path / "gone.h5"
    checkpoint = interrupted(config, path)
    checkpoint.write_bytes(b"not to be looked at")
    result = sgdmap("run", config, "-o", path, "--overwrite")
    assert result.returncode == 0 and "warning" not in result.stderr
    assert_same(reference, path)
    assert_nothing_left(path)


def test_checkpoints_that_cannot_be_written_do_not_end_the_job(reference, config, tmp_path):
    path = tmp_path / "nowhere.h5"
    folder = path.with_name(path.name + ".checkpoints")
    folder.write_text("a file of someone else")
    result = sgdmap("run", config, "-o", path, ranks=2)
    assert result.returncode == 0, result.stderr
    assert "a checkpoint cannot be written" in result.stderr and "Not a directory" in result.stderr
    assert result.stderr.count("warning") <= 2, "once a rank"
    assert folder.read_text() == "a file of someone else"
    assert_same(reference, path)


# -- Signals -----------------------------------------------------------------------------------------------------------


def to_rank(rank):
    return lambda process: [ranks_of(process)[rank]]


WHOM = {
    "rank 0": to_rank(0),
    "rank 1": to_rank(1),
    "all": ranks_of,
    "mpirun": lambda process: [process.pid],
    "everyone": lambda process: [process.pid, *ranks_of(process)],
}


@pytest.mark.parametrize("whom, name", [*((whom, "SIGTERM") for whom in WHOM), ("rank 1", "SIGINT"), ("mpirun", "SIGINT"),
                                        ("rank 0", "SIGUSR1"), ("mpirun", "SIGUSR1")])
def test_a_signal_ends_the_job(reference, config, tmp_path, name, whom):
    path = tmp_path / "signal.h5"
    process = start(config, "-o", path, ranks=2)
    wait_until(lambda: checkpoints(path), process)
    pids = WHOM[whom](process)
    ranks = ranks_of(process)
    begun = time.monotonic()
    for pid in pids:
        os.kill(pid, getattr(signal, name))
    stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - begun < 10 * SLOW
    # Open MPI's mpirun answers its own SIGTERM and SIGINT with exit status 1, whatever the ranks say.
    launcher = whom in ("mpirun", "everyone") and name != "SIGUSR1"
    assert process.returncode in ((75, 1, 143, 130) if launcher else (75,)), stderr
    # mpirun, told to end, does not wait for the last of them.
    while (left := [pid for pid in ranks if is_alive(pid)]) and time.monotonic() - begun < 10 * SLOW:
        time.sleep(0.01)
    assert not left
    assert_sound(path)
    if done_runs(path) == RUNS:  # the machine was too fast
        return
    assert launcher or ("interrupted" in stderr and checkpoints(path))
    result = sgdmap("run", config, "-o", path, ranks=2)
    assert result.returncode == 0, result.stderr
    assert_same(reference, path)
    assert_nothing_left(path)


@pytest.mark.parametrize("rank", [0, 3])
def test_a_signal_to_a_rank_without_work(tmp_path, rank):
    """Two groups for four ranks: two wait for the end."""
    config = tmp_path / "few.yaml"
    config.write_text(CONFIG.replace("replicates: 3", "replicates: 1").replace(str(8000 // SLOW), "400000"))
    path = tmp_path / "few.h5"
    process = start(config, "-o", path, ranks=4)
    wait_until(lambda: checkpoints(path), process)
    time.sleep(0.5)
    os.kill(ranks_of(process)[rank], signal.SIGTERM)
    _, stderr = process.communicate(timeout=10 * SLOW + 5)
    assert process.returncode == 75 and "interrupted" in stderr, stderr
    assert checkpoints(path)


def test_signals_again_and_again(config, tmp_path):
    path = tmp_path / "again.h5"
    process = start(config, "-o", path, ranks=2)
    wait_until(lambda: checkpoints(path), process)
    pids = ranks_of(process)
    for _ in range(40):
        for pid in pids:
            for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                try:
                    os.kill(pid, name)
                except ProcessLookupError:
                    pass
        time.sleep(0.002)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    assert_sound(path)


def catches_signals(process):
    """Has the program said what SIGTERM is to do?"""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    return int(re.search(r"SigCgt:\s*([0-9a-f]+)", status)[1], 16) >> (signal.SIGTERM - 1) & 1 == 1


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3, "caught"])
def test_a_signal_at_the_beginning(config, tmp_path, delay):
    """Before the program has set its mind on anything a signal kills it; from then on it is 75, also during the creation."""
    path = tmp_path / "early.h5"
    process = start(config, "-o", path)
    if delay == "caught":
        wait_until(lambda: catches_signals(process), process)
    else:
        time.sleep(delay)
    caught = catches_signals(process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75 or (process.returncode == -signal.SIGTERM and not caught), stderr
    if path.exists():
        assert_sound(path)
    assert not path.with_name(path.name + ".lock").exists()


def test_a_signal_ends_the_creation_of_a_large_file(config, tmp_path):
    """Some gigabytes to be filled; the signal comes in the middle of it."""
    large = tmp_path / "large.yaml"
    large.write_text(CONFIG.replace("count: 6}", "count: 400000}").replace("weights: final", "weights: none"))
    path = tmp_path / "large.h5"
    process = start(large, "-o", path)
    temporary = tmp_path / ".large.h5.creating"
    wait_until(lambda: temporary.exists() or path.exists(), process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    if "free on its file system" in stderr:
        pytest.skip("no room for it here")
    assert process.returncode == 75, stderr
    assert "interrupted" in stderr and not temporary.exists()


# -- Kills -------------------------------------------------------------------------------------------------------------


def test_kill_storm(reference, config, tmp_path):
    """At random instants a random rank or all of the job are killed, from before the file exists to the last write; the same
    command, on any number of ranks, brings the sweep to the same end, again and again."""
    seed = int(os.environ.get("SGDMAP_SEED", "0")) or random.SystemRandom().randrange(10**6)
    print(f"SGDMAP_SEED={seed}")
    chance = random.Random(seed)
    path = tmp_path / "storm.h5"
    kills = ends = 0
    shortest = 1e9
    while kills < KILLS:
        ranks = chance.choice([None, 2, 3])
        process = start(config, "-o", path, ranks=ranks)
        begun = time.monotonic()
        # Two thirds anywhere; one third at the beginning.
        limit = chance.uniform(0, 1.6 * SLOW) if chance.random() < 0.67 else chance.uniform(0, 0.5 * SLOW)
        while process.poll() is None and time.monotonic() - begun < limit:
            time.sleep(0.005)
        if process.poll() is None:
            kills += 1
            victims = ranks_of(process)
            if ranks is not None and victims and chance.random() < 0.5:
                os.kill(chance.choice(victims), signal.SIGKILL)
                process.communicate(timeout=60)
            else:
                kill_everything(process)
        else:
            process.communicate()
        for pid in ranks_of(process):
            os.kill(pid, signal.SIGKILL)
        if path.exists():
            assert_sound(path)
            if done_runs(path) == RUNS:
                result = sgdmap("run", config, "-o", path)
                assert result.returncode == 0, result.stderr
                assert_same(reference, path)
                assert_nothing_left(path)
                path.unlink()
                ends += 1
        shortest = min(shortest, time.monotonic() - begun)
    result = sgdmap("run", config, "-o", path, ranks=2)
    assert result.returncode == 0, result.stderr
    assert_same(reference, path)
    assert_nothing_left(path)
    print(f"{kills} kills, {ends + 1} sweeps brought to their ends")


# -- Faults at the places of the protocol --------------------------------------------------------------------------------

TINY = CONFIG.replace("replicates: 3", "replicates: 1").replace("count: 6", "count: 2")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The names of all places that a small sweep comes by, in their order, and its file."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "tiny.yaml").write_text(TINY)
    result = sgdmap("run", folder / "tiny.yaml", "-o", folder / "whole.h5", program=WITH_FAULTS,
                    environment={"SGDMAP_FAULT_TRACE": str(folder / "trace")})
    assert result.returncode == 0, result.stderr
    names = [line.split(" ", 1)[1] for line in (folder / "trace").read_text().splitlines()]
    assert len(names) > 100
    return names, folder / "whole.h5"


def by_the_clock(name):
    """Whether, and how often, a job comes by that place depends on how long it takes."""
    return name.startswith("checkpoint")


# Between these the file gets its name, and a run is done.
TURNING_POINTS = ["create: to be named", "create: named", "checksum"]


def sample_of(names, action):
    """(name, which time) of places: the turning points and half of the names, the other half for the other action, at their last
    time (their first, by the clock); or all of them."""
    places, times = [], {}
    for name in names:
        times[name] = times.get(name, 0) + 1
        places.append((name, times[name]))
    if ALL_FAULTS:
        return places
    named = [(name, 1 if by_the_clock(name) else count) for name, count in times.items()]
    if SLOW > 1:
        return named[::5]
    return [place for i, place in enumerate(named) if i % 2 == (action == "kill") or place[0] in TURNING_POINTS]


def fault(action, place):
    name, time_of_it = place
    return {"SGDMAP_FAULT": f"{action} {time_of_it}", "SGDMAP_FAULT_PLACE": name}


def side_by_side(act, items):
    """Most of a short job is start-up, in which the machine is idle. Exceptions of `act` come out of here."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(act, items))


@pytest.mark.parametrize("action", ["kill", "fail"])
def test_every_place(places, tmp_path, action):
    names, whole = places
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)

    def hit(place):
        """Is there a file after it?"""
        name = place[0]
        path = tmp_path / f"{name} {place[1]}.h5".replace(": ", "-")
        result = sgdmap("run", config, "-o", path, program=WITH_FAULTS, environment=fault(action, place))
        where = f"{action} {place}: {result.stdout}{result.stderr}"
        if by_the_clock(name) and result.returncode == 0 and "fault injected" not in result.stderr:
            return name, True, path
        if action == "kill":
            assert result.returncode == -signal.SIGKILL, where
        elif by_the_clock(name):
            assert result.returncode == 0 and "warning" in result.stderr, where  # it goes on without
        else:
            assert result.returncode == 74 and "a fault injected by a test" in result.stderr, where
        exists = path.exists()
        if exists:
            assert sgdmap("verify", path).returncode == 0, where
        result = sgdmap("run", config, "-o", path)
        assert result.returncode == 0, where + result.stderr
        return name, exists, path

    ends = {}
    for name, exists, path in side_by_side(hit, sample_of(names, action)):
        assert_same(whole, path)
        assert_nothing_left(path)
        ends[name] = exists
    if SLOW == 1:
        assert not ends["create: to be named"] and ends["create: named"] and ends["checksum"]


@pytest.mark.parametrize("action", ["kill", "fail"])
def test_places_of_going_on(places, tmp_path, action):
    """The same, of a job that goes on in a file that another one has left half done, on two ranks of which one is hit."""
    names, whole = places
    config, half = tmp_path / "tiny.yaml", tmp_path / "half.h5"
    config.write_text(TINY)
    result = sgdmap("run", config, "-o", half, program=WITH_FAULTS,
                    environment=fault("kill", ("group: done", 1)))
    assert result.returncode == -signal.SIGKILL

    def hit(at):
        path = tmp_path / f"going{at}.h5"
        shutil.copy(half, path)
        result = sgdmap("run", config, "-o", path, ranks=2, program=WITH_FAULTS,
                        environment={"SGDMAP_FAULT": f"{action} {at}", "SGDMAP_FAULT_RANK": str(at // 7 % 2)})
        assert result.returncode in ((0, 74) if action == "fail" else (0, 137)), f"{at}: {result.stderr}"
        assert sgdmap("verify", path).returncode == 0
        result = sgdmap("run", config, "-o", path, ranks=2)
        assert result.returncode == 0, f"{at}: {result.stderr}"
        return path

    for path in side_by_side(hit, range(1, 60, 1 if ALL_FAULTS else 7 * min(SLOW, 3))):
        assert_same(whole, path)


# -- The disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """mount(size): a file system of that size; root alone can make one."""
    mounted = []

    def mount(size):
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        result = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, text=True)
        if result.returncode != 0:
            pytest.skip(f"mount: {result.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_at_the_creation(config, small_disk):
    disk = small_disk("400k")
    for ranks in (None, 2):
        result = sgdmap("run", config, "-o", disk / "full.h5", ranks=ranks)
        assert result.returncode == 74 and "the sweep needs" in result.stderr and "free" in result.stderr
        assert not list(disk.iterdir())
    subprocess.run(["mount", "-o", "remount,size=16M", str(disk)], check=True)
    assert sgdmap("run", config, "-o", disk / "full.h5", ranks=2).returncode == 0


def test_a_disk_that_fills_up(reference, config, small_disk):
    """The result file has its room; the checkpoints have none, and the job goes on."""
    disk = small_disk("16M")
    process = start(config, "-o", disk / "full.h5", ranks=2)
    wait_until((disk / "full.h5").exists, process)
    with open(disk / "filler", "wb") as filler:
        try:
            while True:
                filler.write(bytes(65536))
        except OSError:
            pass
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert_same(reference, disk / "full.h5")


def test_a_disk_that_fills_up_where_room_cannot_be_set_aside(reference, config, tmp_path):
    """Writes of one rank fail from some instant on, as on file systems without fallocate; then there is room again."""
    for after in (60, 90, 130):
        path = tmp_path / "full.h5"
        result = sgdmap("run", config, "-o", path, ranks=2, program=WITH_FAULTS,
                        environment={"SGDMAP_FAULT": f"full {after}", "SGDMAP_FAULT_RANK": "0"})
        assert result.returncode == 74, result.stderr
        if path.exists():
            assert_sound(path)
        result = sgdmap("run", config, "-o", path, ranks=2)
        assert result.returncode == 0, result.stderr
        assert_same(reference, path)
        path.unlink()


def test_a_disk_that_becomes_read_only(config, small_disk):
    disk = small_disk("16M")
    path = disk / "ro.h5"
    interrupted(config, path)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    result = sgdmap("run", config, "-o", path)
    assert result.returncode == 74 and "Read-only file system" in result.stderr
    assert sgdmap("status", path).returncode == 0
    assert_sound(path)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    result = sgdmap("run", config, "-o", path)
    assert result.returncode == 0 and "were taken up" in result.stdout


def disturbed(config, path, disturb, *, ranks=2):
    """A job under which, when it has finished some runs, something happens to its file."""
    process = start(config, "-o", path, ranks=ranks)
    wait_until(lambda: path.exists() and done_runs(path) > 0, process)
    disturb()
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def test_the_file_is_removed_under_the_job(reference, config, tmp_path):
    path = tmp_path / "removed.h5"
    status, stderr = disturbed(config, path, path.unlink)
    assert status == 74 and "was removed while this job writes it" in stderr and "is there again" in stderr, stderr
    assert_sound(path)
    assert done_runs(path) > 0
    assert sgdmap("run", config, "-o", path).returncode == 0
    assert_same(reference, path)
    assert_nothing_left(path)


def test_the_file_is_moved_away_under_the_job(reference, config, tmp_path):
    path, away = tmp_path / "moved.h5", tmp_path / "away.h5"
    status, stderr = disturbed(config, path, lambda: path.rename(away))
    assert status == 74 and "was moved away" in stderr and "move it back" in stderr, stderr
    assert not path.exists()
    away.rename(path)
    assert_sound(path)
    assert sgdmap("run", config, "-o", path).returncode == 0
    assert_same(reference, path)


@pytest.mark.parametrize("share", [0, 0.8])
def test_the_file_is_cut_under_the_job(reference, config, tmp_path, share):
    path = tmp_path / "cut.h5"
    status, stderr = disturbed(config, path, lambda: os.truncate(path, int(share * path.stat().st_size)))
    assert status == 74 and "was cut to" in stderr, stderr
    if share == 0:  # nothing of it can be read any more, but for what was written after
        assert sgdmap("verify", path).returncode == 74
        result = sgdmap("run", config, "-o", path)
        assert result.returncode == 2 and "not a result file" in result.stderr, result.stderr
        assert sgdmap("run", config, "-o", path, "--overwrite").returncode == 2, "it could be anything"
    else:  # the rows that are gone are trained again
        assert sgdmap("run", config, "-o", path).returncode == 0
        assert_same(reference, path)


def test_the_folder_is_removed_under_the_job(config, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    path = folder / "lost.h5"

    def remove() -> None:
        while folder.exists():
            shutil.rmtree(folder, ignore_errors=True)  # the job may make a file meanwhile

    status, stderr = disturbed(config, path, remove)
    assert status == 74 and "was removed while this job writes it" in stderr, stderr


def test_the_checkpoints_are_removed_under_the_job(reference, config, tmp_path):
    path = tmp_path / "bare.h5"
    process = start(config, "-o", path, ranks=2)
    wait_until(lambda: checkpoints(path), process)
    while process.poll() is None:
        shutil.rmtree(path.with_name(path.name + ".checkpoints"), ignore_errors=True)
        time.sleep(0.02)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert_same(reference, path)


def test_no_descriptor_is_left(config, tmp_path):
    """Few files may be open: nothing is kept open that is not needed."""
    result = subprocess.run(["bash", "-c", 'ulimit -n 64; exec "$@"', "-", *command("run", config, "-o", tmp_path / "few.h5")],
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
