"""The core of sgdmap by ctypes, for tests: numpy arrays in, numpy arrays out.

Matrices here are the usual ones: column j of A belongs to neuron j. The shared library's path comes from the environment
(SGDMAP_PROBE), where meson puts it.
"""

import ctypes
import os
from dataclasses import dataclass

import numpy as np

FIELDS = ["loss", "batch_loss", "error", "potential", "potential_norm", "alignment", "gradient_norm", "weight_norm",
          "test_loss"]
PENDING, RUNNING, CONVERGED, DIVERGED, STALLED, UNFINISHED, FAILED = range(7)
IDENTITY, NONE = range(2)
INPUT, TEACHER, INITIAL, NOISE, DATA_NOISE, SHUFFLE, DATA, TEST = 0, 16, 17, 18, 19, 20, 32, 48
GAUSSIAN, ORTHOGONAL, LOW_RANK, DIAGONAL = range(4)
CONSTANT, INVERSE_TIME, COSINE = range(3)
INPUTS = ["gaussian", "sphere", "student_t", "laplace", "uniform", "rademacher"]

_library = ctypes.CDLL(os.environ["SGDMAP_PROBE"])
_library.probe_family.restype = ctypes.c_char_p
_library.probe_spectral_norm.restype = ctypes.c_double
_library.probe_setup()


def _pointer(array):
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def _int(value):
    return ctypes.c_int64(int(value))


def _isa(name):
    return None if name is None else name.encode()


def family():
    return _library.probe_family().decode()


def isas():
    """The instruction sets that this CPU can run, the default first."""
    return [isa for isa in ("avx512", "avx2", "baseline") if normals(1, isa=isa) is not None]


def normals(count, seed=1, replicate=0, dimension=10, purpose=INPUT, step=0, isa=None):
    ret = np.empty(count)
    code = _library.probe_normals(
        _isa(isa), ctypes.c_uint64(seed), _int(replicate), _int(dimension), purpose, _int(step), _int(count), _pointer(ret)
    )
    return ret if code == 0 else None


def _inputs(seed, replicate, dimension, step, batch, law, isa, data, noise):
    ret, labels = np.empty((dimension, batch)), np.empty(batch) if noise else None
    code = _library.probe_inputs(_isa(isa), ctypes.c_uint64(seed), _int(replicate), _int(dimension), INPUTS.index(law), _int(step),
                                 _int(batch), _int(data), _pointer(ret), _pointer(labels) if noise else None)
    assert code == 0
    return ret.T, labels


def inputs(seed, replicate, dimension, step, batch, law="gaussian", isa=None, data=0):
    """X of a step, [batch][dimension]; of a training set with `data` samples."""
    return _inputs(seed, replicate, dimension, step, batch, law, isa, data, False)[0]


def test_set(seed, replicate, dimension, count, law="gaussian", isa=None):
    """X [count][dimension]"""
    return _inputs(seed, replicate, dimension, 0, count, law, isa, -1, False)[0]


test_set.__test__ = False


def noise(seed, replicate, dimension, step, batch, data=0, isa=None):
    """Of the labels of a step, [batch], in units of its bound."""
    return _inputs(seed, replicate, dimension, step, batch, "gaussian", isa, data, True)[1]


def permutation(seed, replicate, dimension, epoch, count):
    ret = np.empty(count, dtype=np.uint32)
    _library.probe_permutation(ctypes.c_uint64(seed), _int(replicate), _int(dimension), _int(epoch), _int(count), _pointer(ret))
    return ret


def model(seed, replicate, dimension, teacher_norm, init_scale, link=IDENTITY, kind=GAUSSIAN, rank=1):
    """The effective columns (B, A_0)."""
    teacher, student = np.empty((dimension, dimension)), np.empty((dimension, dimension))
    assert (
        _library.probe_model(
            ctypes.c_uint64(seed), _int(replicate), _int(dimension), kind, _int(rank), ctypes.c_double(teacher_norm),
            ctypes.c_double(init_scale), link, _pointer(teacher), _pointer(student),
        )
        == 0
    )
    return teacher.T, student.T


def landscape(teacher, student, isa=None):
    """The diagnostics as a dict, and the gradient with dL/dw_j in column j."""
    dimension = len(teacher)
    values, gradient = np.empty(6), np.empty((dimension, dimension))
    b, a = np.ascontiguousarray(teacher.T), np.ascontiguousarray(student.T)
    assert _library.probe_landscape(_isa(isa), _int(dimension), _pointer(b), _pointer(a), _pointer(values), _pointer(gradient)) == 0
    names = ["loss", "error", "potential", "potential_norm", "alignment", "gradient_norm"]
    return dict(zip(names, values)), gradient.T


def spectral_norm(matrix):
    columns = np.ascontiguousarray(matrix.T)
    return _library.probe_spectral_norm(_int(len(matrix)), _pointer(columns))


@dataclass
class Run:
    step_size: float
    init_scale: float = 0.0
    teacher_norm: float = 1.0
    link: int = IDENTITY
    noise: float = 0.0
    teacher: int = GAUSSIAN
    schedule: int = CONSTANT


def train(runs, dimension, batch, steps, records, tolerance=1e-3, seed=1, replicate=0, slice=1e9, isa=None, in_lanes=True,
          law="gaussian", population=False, data=0, test=0, rank=1, decay=1.0):
    """Trains a group. Returns (fields {name: [run][record]}, outcomes [run][outcome, steps_done, converged_step,
    phase2_step], finals [run][final_error, final_loss, wall_time], students [run][d][d] W)."""
    count = len(runs)
    integers = np.array([dimension, 0 if population else batch, seed, replicate, steps, records, count,
                         in_lanes and not population, INPUTS.index(law), population, data, test, rank], dtype=np.int64)
    scalars = np.array([tolerance, decay, slice])
    reals = np.array([[run.step_size, run.init_scale, run.teacher_norm, run.noise] for run in runs])
    kinds = np.array([[run.link, run.teacher, run.schedule] for run in runs], dtype=np.int64)
    fields = np.empty((len(FIELDS), count, records))
    outcomes, finals = np.empty((count, 4), dtype=np.int64), np.empty((count, 3))
    students = np.empty((count, dimension, dimension))
    assert (
        _library.probe_train(_isa(isa), _pointer(integers), _pointer(scalars), _pointer(reals), _pointer(kinds),
                             _pointer(fields), _pointer(outcomes), _pointer(finals), _pointer(students))
        == 0
    )
    return dict(zip(FIELDS, fields)), outcomes, finals, students
