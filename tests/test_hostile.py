"""Result files that are cut short, random, damaged or made to do harm: an error of one line, and never a crash, a hang or a
huge allocation. SGDMAP_HOSTILE_FILES=20000 tries that many damaged ones; SGDMAP_HOSTILE_SEED=2 others."""
from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable

import h5py
import numpy as np
import pytest

PROGRAM = os.environ["SGDMAP"]
FILES = int(os.environ.get("SGDMAP_HOSTILE_FILES", "80"))
SEED = int(os.environ.get("SGDMAP_HOSTILE_SEED", "1"))
ASAN = "libasan" in subprocess.run(["ldd", PROGRAM], capture_output=True, text=True).stdout
MEMORY = 1 << (31 if ASAN else 29)  # bytes, resident
TIMEOUT = 60  # s; the program gives a file up after 10 s of CPU time

CONFIG = """\
title: a small sweep
seed: 3
grid: {dimension: [2, 3], step_size: [0.01, 0.1, 1], init_scale: [0, 1], teacher_norm: 0.5, batch_size: 4, replicates: 2}
training: {steps: 20, tolerance: 1.0e-2}
records: {count: 5}
output: {fields: [loss, error], weights: final}
"""
RUNS = 24
VOLATILE = ("wall_time", "rank")

# Opens every file that it is told of, in one process for speed; its answer is a line.
ANALYSIS = """
import sys
sys.path.insert(0, sys.argv[1])
from sgdmap_analysis import SweepError, open_sweep
for line in sys.stdin:
    try:
        sweep = open_sweep(line.rstrip("\\n"))
        if "error" in sweep:
            sweep["error"].values
        answer = "ok"
    except SweepError as error:
        answer = "refused " + str(error)
    print(answer.replace("\\n", "\\\\n"), flush=True)
"""


class Analysis:
    """open_sweep in a process of its own, a new one where it died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def open(self, path: Path) -> str:
        if self.process is None:
            package = Path(__file__).resolve().parent.parent / "analysis"
            self.process = subprocess.Popen([sys.executable, "-B", "-c", ANALYSIS, package], text=True,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        signal.alarm(TIMEOUT)
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        signal.alarm(0)
        if not answer:
            died, self.process = self.process, None
            raise AssertionError(f"the analysis ended with {died.wait()}: {died.stderr.read()[-500:]}")
        return answer.rstrip("\n")

    def close(self) -> None:
        if self.process is None:
            return
        self.process.stdin.close()
        peak = int(next(line for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
                        if line.startswith("VmHWM")).split()[1]) * 1024
        self.process.wait(TIMEOUT)
        assert peak < 1 << 30, f"the analysis took {peak >> 20} MB"


@pytest.fixture(scope="module")
def analysis():
    ret = Analysis()
    yield ret
    ret.close()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def reference(config):
    path = config.with_name("reference.h5")
    result = subprocess.run([PROGRAM, "run", config, "-o", path], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return path


def sgdmap(*arguments) -> tuple[int, str, str]:
    """Status, output and errors. Fails if the program dies of a signal, hangs or takes much memory, its children included."""
    command = [PROGRAM, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                               start_new_session=True)
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise AssertionError(f"{arguments}: no end after {TIMEOUT} s") from None
    assert process.returncode >= 0, f"{arguments}: died of signal {-process.returncode}: {errors[-500:]}"
    return process.returncode, output, errors


def peak_memory() -> int:
    """Of the largest child so far, bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def processor_time() -> float:
    """Of all children so far that have ended, s. What waits for ever is ended by TIMEOUT."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def try_command(statuses: set[int], *arguments) -> tuple[int, str]:
    """One command: a documented status, and one line of error where there is one."""
    status, output, errors = sgdmap(*arguments)
    assert status in statuses, f"{arguments}: status {status}: {errors[-500:]}"
    assert "HDF5-DIAG" not in errors and "AddressSanitizer" not in errors and "runtime error" not in errors, errors[-2000:]
    assert "\x1b" not in output + errors, "the file speaks to the terminal"
    lines = errors.splitlines()
    if status not in (0, 1):
        # `run` may have told before what it has to do, and lists the differences of another sweep.
        lines = [line for line in lines if not line.startswith("  ")][-1:] if arguments[0] == "run" else lines
        assert len(lines) == 1 and lines[0].startswith("sgdmap: "), errors
    return status, output


def try_all(path: Path, config: Path, analysis: Analysis, run: bool) -> int:
    """Everything that reads a file. The status of verify."""
    status, _ = try_command({0, 74}, "verify", path)
    _, output = try_command({0, 74}, "status", "--json", path)
    assert not output or json.loads(output)["runs"] >= 1
    try_command({0, 1, 2, 74}, "replay", path, 0)
    analysis.open(path)
    if run:
        try_command({0, 74}, "status", path)
        try_command({0, 2, 74}, "run", config, "-o", path)
        assert not path.with_name(path.name + ".lock").exists()
    return status


# -- Damage ------------------------------------------------------------------------------------------------------------


def metadata(path: Path) -> list[int]:
    """Where something stands that is no row: all nonzero bytes outside of raw data."""
    content = bytearray(path.read_bytes())

    def blank(_, item):
        if isinstance(item, h5py.Dataset):
            content[item.id.get_offset() : item.id.get_offset() + item.id.get_storage_size()] = bytes(item.id.get_storage_size())

    with h5py.File(path, "r") as file:
        file.visititems(blank)
    return [at for at, byte in enumerate(content) if byte]


def damaged(content: bytes, spots: list[int], turn: int, dice: random.Random) -> tuple[str, bytes]:
    """One way of damage after the other."""
    ret = bytearray(content)
    size = len(ret)
    kinds = ("flip", "flips", "number", "cut", "noise", "zeros", "moved", "garbage", "tail")
    kind = kinds[0] if turn % 3 == 0 else kinds[turn // 3 * 2 % len(kinds) - turn % 3]
    spot = dice.choice(spots)
    length = min(dice.choice((8, 64, 512, 4096, 65536)), size - spot)
    if kind == "flip":
        ret[spot] ^= dice.randrange(1, 256)
    elif kind == "flips":
        for _ in range(dice.randrange(2, 9)):
            ret[dice.choice(spots)] ^= dice.randrange(1, 256)
    elif kind == "number":  # sizes and addresses that are out of all bounds
        width = dice.choice((2, 4, 8))
        value = dice.choice((2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 4), size, size - 1, 1))
        ret[spot : spot + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
    elif kind == "cut":
        del ret[dice.randrange(size) :]
    elif kind == "noise":
        ret[spot : spot + length] = dice.randbytes(length)
    elif kind == "zeros":
        ret[spot : spot + length] = bytes(length)
    elif kind == "moved":
        source = dice.choice(spots)
        ret[spot : spot + length] = (content[source : source + length] + bytes(length))[:length]
    elif kind == "garbage":
        ret[8 * dice.randrange(2) :] = dice.randbytes(dice.choice((0, 1, 100, 5000)))
    else:
        ret += dice.randbytes(dice.randrange(1, 5000))
    return kind, bytes(ret[:size] if kind != "tail" else ret)


def same_values(path: Path, reference: Path) -> bool:
    """Everything that `verify` promises to look at. In a child: HDF5 may not live through it."""
    code = """
import sys, h5py
def values(path):
    ret = {}
    def look(name, item):
        if isinstance(item, h5py.Dataset) and name not in ("wall_time", "rank"):
            ret[name] = item[()].tobytes()
        if isinstance(item, h5py.Dataset):
            for key in ("units", "flag_values", "flag_meanings", "coordinates", "_FillValue"):
                ret[name, key] = bytes(item.attrs[key]) if key in item.attrs else None
    with h5py.File(path, "r", locking=False) as file:
        file.visititems(look)
    return ret
sys.exit(values(sys.argv[1]) != values(sys.argv[2]))
"""
    return subprocess.run([sys.executable, "-c", code, path, reference], stderr=subprocess.DEVNULL).returncode == 0


def test_damaged_files(reference, config, tmp_path, analysis):
    content, spots = reference.read_bytes(), metadata(reference)
    assert len(spots) > 5000
    dice = random.Random(SEED)
    path, counts, refused = tmp_path / "damaged.h5", {}, 0
    failures = []
    for turn in range(FILES):
        kind, bad = damaged(content, spots, turn, dice)
        path.write_bytes(bad)
        try:
            status = try_all(path, config, analysis, run=turn % 8 == 0)
            if status == 0 and kind in ("flip", "number") and turn % 8 != 0:
                assert same_values(path, reference), "verify passed, and the values are others"
        except AssertionError as error:
            keep = Path(os.environ.get("SGDMAP_HOSTILE_KEEP", tmp_path)) / f"{SEED}-{turn}-{kind}.h5"
            keep.write_bytes(bad)
            failures.append(f"{keep}: {error}")
            status = -1
        counts[kind] = counts.get(kind, 0) + 1
        refused += status != 0
        path.unlink(missing_ok=True)
    print(counts, refused, "refused")
    assert not failures, "\n".join(failures[:20])
    assert refused > FILES / 4
    assert peak_memory() < MEMORY, f"{peak_memory() >> 20} MB"


# -- Malice ------------------------------------------------------------------------------------------------------------


def replaced(name: str, **how) -> Callable[[h5py.File], None]:
    """A dataset with the right name and the wrong form, its values as they were where they fit."""

    def act(file: h5py.File) -> None:
        data = file[name][()]
        shape, dtype = how.get("shape", data.shape), how.get("dtype", data.dtype)
        options = {key: value for key, value in how.items() if key not in ("shape", "dtype")}
        del file[name]
        dataset = file.create_dataset(name, shape, dtype, **options)
        if shape == data.shape and not options.get("external") and dtype == data.dtype:
            dataset[...] = data

    return act


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((RUNS,), "<f8")
    layout[:] = h5py.VirtualSource(".", "step_size", (RUNS,))
    del file["final_loss"]
    file.create_virtual_dataset("final_loss", layout)


def linked(name: str, link) -> Callable[[h5py.File], None]:
    def act(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return act


def attribute(name: str, value, dataset: str | None = None) -> Callable[[h5py.File], None]:
    def act(file: h5py.File) -> None:
        attributes = (file if dataset is None else file[dataset]).attrs
        del attributes[name]
        attributes[name] = value

    return act


def configured(*pairs: str) -> Callable[[h5py.File], None]:
    """Old and new pieces of the config's text in turn."""
    text = CONFIG
    for old, new in zip(pairs[::2], pairs[1::2]):
        assert old in text
        text = text.replace(old, new)
    return attribute("config", np.bytes_(text))


def cycle(file: h5py.File) -> None:
    file["weights_d2/weights_d2"] = file["weights_d2"]
    file["weights_d2/root"] = file["/"]


def same_rows(file: h5py.File) -> None:
    del file["loss"]
    file["loss"] = file["error"]


def odd_attribute(file: h5py.File) -> None:
    space = h5py.h5s.create_simple((1000,))
    file.attrs.__delitem__("ranks")
    attribute = h5py.h5a.create(file.id, b"ranks", h5py.h5t.NATIVE_INT32, space)
    attribute.write(np.full(1000, 7, "<i4"))


HUGE = 10**15
RANGE = "{linear: [0.1, 1], count: 1000000}"
MALICE = {
    "chunked": replaced("loss", chunks=(1, 5)),
    "compressed": replaced("loss", chunks=(4, 5), compression="gzip"),
    "chunked, far beyond the file": replaced("loss", shape=(HUGE, 5), chunks=(1, 5)),
    "chunked runs beyond the file": replaced("status", shape=(HUGE,), chunks=(4096,)),
    "a bomb": replaced("error", shape=(2**24, 64), chunks=(4096, 64), compression="gzip"),
    "external": replaced("wall_time", external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)]),
    "virtual": virtual,
    "soft link": linked("loss", h5py.SoftLink("/error")),
    "soft link to itself": linked("loss", h5py.SoftLink("/loss")),
    "external link": linked("loss", h5py.ExternalLink("/dev/stdin", "/error")),
    "external link to a pipe": linked("loss", h5py.ExternalLink("pipe", "/error")),
    "external link to weights": linked("weights_d2", h5py.ExternalLink("pipe", "/weights_d2")),
    "group for dataset": lambda file: (file.__delitem__("status"), file.create_group("status")),
    "named type for dataset": lambda file: (file.__delitem__("status"), file.__setitem__("status", np.dtype("<i1"))),
    "cycle": cycle,
    "two names for one dataset": same_rows,
    "empty": lambda file: [file.__delitem__(name) for name in list(file)],
    "null space": lambda file: (file.__delitem__("status"), file.create_dataset("status", data=h5py.Empty("i1"))),
    "big endian": replaced("step_size", dtype=">f8"),
    "strings": replaced("step_size", dtype=h5py.string_dtype()),
    "compound": replaced("step_size", dtype=np.dtype([("a", "<f8"), ("b", "<f8")])),
    "references": replaced("step_size", dtype=h5py.ref_dtype),
    "lists": replaced("step_size", dtype=h5py.vlen_dtype(np.dtype("<f8"))),
    "arrays": replaced("step_size", dtype=np.dtype(("<f8", (4,)))),
    "32 dimensions": replaced("loss", shape=(1,) * 32),
    "no runs": replaced("status", shape=(0,)),
    "config a list": attribute("config", np.arange(10)),
    "config of variable length": attribute("config", "seed: 1"),
    "config empty": attribute("config", h5py.Empty("S10")),
    "config of references": attribute("config", np.array([None], dtype=h5py.ref_dtype)),
    "config long": attribute("config", np.bytes_(b"#" * 60000)),
    "config without end": attribute("config", np.frombuffer(b"seed: 3\n# " + b"x" * 100, "S110")[0]),
    "config not UTF-8": attribute("config", np.bytes_(b"title: \xff\xfe\n")),
    "config deep": attribute("config", np.bytes_(b"[" * 50000)),
    "config with aliases": attribute("config", np.bytes_(b"a: &a [x,x]\nb: &b [*a,*a]\nseed: *b\n")),
    "10^18 runs": configured("step_size: [0.01, 0.1, 1], init_scale: [0, 1]",
                             f"step_size: {RANGE}, init_scale: {RANGE}, link: [identity, none]"),
    "10^18 replicates": configured("replicates: 2", "replicates: 1000000000000000000"),
    "10^6 blocks": configured("dimension: [2, 3]", "dimension: {linear: [1, 4000], count: 1000}",
                              "batch_size: 4", "batch_size: {linear: [1, 60000], count: 1000}"),
    "10^6 records": configured("steps: 20, tolerance: 1.0e-2}\nrecords: {count: 5}",
                               "steps: 100000000, tolerance: 1.0e-2}\nrecords: {count: 1000000}"),
    "title that speaks to the terminal": configured("a small sweep", '"\\e[2J\\e]0;x\\a"'),
    "digest that speaks to the terminal": attribute("config_digest", np.bytes_("\x1b[2J")),
    "overrides": attribute("config_overrides", np.bytes_("training.steps=1000000000\n" * 1000)),
    "no overrides": lambda file: file.attrs.__delitem__("config_overrides"),
    "digest of another length": attribute("config_digest", np.bytes_("0" * 40000)),
    "version a text": attribute("format_version", "one"),
    "version of the future": attribute("format_version", np.int32(2)),
    "versions": attribute("format_version", np.arange(1000, dtype=np.int32)),
    "ranks without end": odd_attribute,
    "ranks a text": attribute("ranks", np.bytes_(b"x" * 1000)),
    "no ranks": lambda file: file.attrs.__delitem__("ranks"),
    "negative ranks": attribute("ranks", np.int64(-(2**40))),
    "history of lists": attribute("history", "a" * 60000),
    "flags of one letter": attribute("flag_meanings", np.bytes_(b"x" * 60000), "status"),
    "flags of another type": attribute("flag_values", np.arange(7.0), "status"),
    "more flags": attribute("flag_values", np.arange(7000), "status"),
    "dimension list of numbers": attribute("DIMENSION_LIST", np.arange(7), "loss"),
    "a status that is none": lambda file: file["status"].write_direct(np.full(RUNS, -1, "i1")),
    "all pending": lambda file: file["status"].write_direct(np.zeros(RUNS, "i1")),
    "dimensions without bounds": lambda file: file["dimension"].write_direct(np.full(RUNS, 2**40)),
    "one dimension without bounds": lambda file: file["dimension"].__setitem__(0, 2**62),
    "settings NaN": lambda file: file["step_size"].write_direct(np.full(RUNS, np.nan)),
    "negative steps": lambda file: file["steps_done"].write_direct(np.full(RUNS, -(2**63))),
}


def test_malicious_files(reference, config, tmp_path, analysis):
    os.mkfifo(tmp_path / "pipe")
    failures = []
    for name, act in MALICE.items():
        path = tmp_path / "malice.h5"
        shutil.copy(reference, path)
        with h5py.File(path, "r+", locking=False) as file:
            act(file)
        start = processor_time()
        try:
            verified = try_all(path, config, analysis, run=len(name) % 3 == 0 or "terminal" in name)
            assert verified == 74 or name in ("cycle", "no ranks", "ranks without end", "ranks a text", "negative ranks",
                                              "history of lists"), "verify passed"
            spent = processor_time() - start  # not the clock's: other programs may have the processor
            assert spent < 15, f"{spent:.0f} s of processor time"
        except AssertionError as error:
            failures.append(f"{name}: {error}")
    assert not failures, "\n".join(failures)
    assert peak_memory() < MEMORY, f"{peak_memory() >> 20} MB"


def test_files_that_are_none(config, tmp_path, analysis, reference):
    for name, content in {"empty": b"", "text": b"dear diary\n" * 100, "signature": b"\x89HDF\r\n\x1a\n",
                          "zeros": bytes(100000), "user block": bytes(512) + reference.read_bytes(),
                          "twice": reference.read_bytes() * 2}.items():
        path = tmp_path / f"{name}.h5"
        path.write_bytes(content)
        try_all(path, config, analysis, run=True)
    sparse = tmp_path / "sparse.h5"
    with open(sparse, "wb") as stream:
        stream.truncate(1 << 40)
    try_all(sparse, config, analysis, run=True)
    assert peak_memory() < MEMORY


def test_a_crash_in_hdf5_is_an_error(reference, tmp_path):
    """What the child is for, whatever HDF5 there is: reading kills the process that reads."""
    source = tmp_path / "crash.c"
    source.write_text("""
#include <signal.h>
#include <stdlib.h>
int H5Aexists(long object, const char *name)
{
    const char *how = getenv("CRASH");
    for (volatile int i = 0; how[0] == 'l'; i++)
        ;
    char *block = NULL;
    for (size_t at = 0; how[0] == 'm' && (block = malloc(1 << 20)) != NULL; at++)
        for (size_t page = 0; page < 1 << 20; page += 4096)
            block[page] = 1;
    (void)object, (void)name, (void)block;
    raise(SIGSEGV);
    return 0;
}
""")
    library = tmp_path / "crash.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O0", "-o", library, source], check=True)
    if ASAN:
        pytest.skip("preloads its own library first")
    for how, why in (("crash", "Segmentation fault"), ("loop", "no end after 10 s of CPU time"), ("memory", "Segmentation fault")):
        environment = {**os.environ, "LD_PRELOAD": str(library), "CRASH": how}
        result = subprocess.run([PROGRAM, "verify", reference], capture_output=True, text=True, env=environment, timeout=3 * TIMEOUT)
        assert result.returncode == 74
        assert result.stderr == f"sgdmap: {reference}: not an sgdmap result file: HDF5 cannot read it: {why}\n"
    assert peak_memory() < 3 << 29
