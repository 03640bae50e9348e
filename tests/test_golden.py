"""The core against other programs: mpmath, NumPy, PyTorch, Monte Carlo, and the published vectors of Philox."""

import mpmath
import numpy as np
import pytest
from scipy import stats

import probe
from probe import Run

EPS = np.finfo(float).eps


# -- The stream of normals ---------------------------------------------------------------------------------------------


def philox(counter, key):
    """Philox 4x32-10 (Salmon et al., SC11) in NumPy: counter [..., 4], key [2], uint64 holding 32 bits."""
    c = [counter[..., i].astype(np.uint64) for i in range(4)]
    k = [np.uint64(key[0]), np.uint64(key[1])]
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> shift) ^ c[1] ^ k[0], p1 & low, (p0 >> shift) ^ c[3] ^ k[1], p0 & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return np.stack(c, axis=-1)


@pytest.mark.parametrize(
    "counter, key, expected",
    [  # kat_vectors of Random123
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_of_this_test_has_the_published_values(counter, key, expected):
    assert philox(np.array(counter, dtype=np.uint64), key).tolist() == expected


def wide_words(count, seed, replicate, dimension, purpose, step):
    """The two words of 64 bits of each block of the stream's first `count` variates, [block][2]."""
    key = philox(np.array([purpose, dimension, replicate & 0xFFFFFFFF, replicate >> 32], dtype=np.uint64),
                 [seed & 0xFFFFFFFF, seed >> 32])[:2]
    chunks = -(-count // 16)
    counter = np.zeros((8 * chunks, 4), dtype=np.uint64)
    counter[:, 0] = np.arange(8 * chunks)
    counter[:, 2], counter[:, 3] = step & 0xFFFFFFFF, step >> 32
    words = philox(counter, key)
    return words[:, 0::2] | words[:, 1::2] << np.uint64(32)


def in_stream(pairs):
    """[2][block] in the order of the stream: of eight blocks the first of each, then the second of each."""
    return pairs.reshape(2, -1, 8).transpose(1, 0, 2).reshape(-1)


def normals_by_numpy(count, seed, replicate, dimension, purpose, step):
    wide = wide_words(count, seed, replicate, dimension, purpose, step)
    uniform = (wide >> np.uint64(12)).astype(float) * 2.0**-52
    radius, angle = np.sqrt(-2 * np.log(1 - uniform[:, 0])), 2 * np.pi * uniform[:, 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)])  # [cosine, sine][block]
    return in_stream(pairs)[:count]


def inputs_by_numpy(law, seed, replicate, d, step, batch, purpose=probe.INPUT):
    """[batch][d], from the definitions in include/sgdmap/config.h and kernels.h."""
    purpose += probe.INPUTS.index(law)
    if law in ("gaussian", "sphere", "student_t"):
        pitch = d + 5 if law == "student_t" else d
        z = normals_by_numpy(batch * pitch, seed, replicate, d, purpose, step).reshape(batch, pitch)
        if law == "sphere":
            z = z * np.sqrt(d) / np.linalg.norm(z, axis=1, keepdims=True)
        elif law == "student_t":
            z = z * np.sqrt(3 / (z[:, d:] ** 2).sum(axis=1, keepdims=True))
        return z[:, :d]
    words = in_stream(wide_words(batch * d, seed, replicate, d, purpose, step).T)[: batch * d].reshape(batch, d)
    uniform = (words >> np.uint64(12)).astype(float) * 2.0**-52
    if law == "laplace":
        return np.where(words & np.uint64(1), -1, 1) * -np.log(1 - uniform) / np.sqrt(2)
    if law == "uniform":
        return np.sqrt(3) * (2 * uniform - 1)
    return np.where(words >> np.uint64(63), -1.0, 1.0)


@pytest.mark.parametrize("law", probe.INPUTS)
def test_inputs_are_those_of_their_definitions(law):
    for seed, replicate, d, step, batch in [(1, 0, 10, 0, 50), (2**63 + 5, 3, 77, 2**33 + 1, 3), (4, 1, 1, 5, 33)]:
        expected = inputs_by_numpy(law, seed, replicate, d, step, batch)
        for isa in probe.isas():
            ours = probe.inputs(seed, replicate, d, step, batch, law, isa)
            np.testing.assert_allclose(ours, expected, rtol=100 * EPS, atol=60 * EPS * np.abs(expected).max())
        assert np.array_equal(ours[:2], probe.inputs(seed, replicate, d, step, 2, law, isa)), "a sample must not depend on the batch"


@pytest.mark.parametrize("law", probe.INPUTS)
def test_inputs_have_their_moments_and_laws(law):
    d, batch = 4, 400_000
    x = probe.inputs(9, 0, d, 3, batch, law)
    # Mean 0 and covariance I, within 5 standard errors as estimated from the sample itself.
    for moment, expected in [(x, np.zeros(d)), ((x[:, :, None] * x[:, None, :]).reshape(batch, -1), np.eye(d).reshape(-1))]:
        error = moment.std(axis=0) / np.sqrt(batch)
        assert (np.abs(moment.mean(axis=0) - expected) <= 5 * error + 1e-12).all()
    # One component, and one in a direction that is none of the axes', against the law; the critical value of one in 10,000.
    radius = (x**2).sum(axis=1)
    oblique = x @ np.full(d, 0.5)
    component = {
        "gaussian": stats.norm(),
        "sphere": stats.beta(1.5, 1.5, loc=-2, scale=4),  # of the sphere in 4 dimensions, radius 2
        "student_t": stats.t(5, scale=np.sqrt(3 / 5)),
        "laplace": stats.laplace(scale=1 / np.sqrt(2)),
        "uniform": stats.uniform(-np.sqrt(3), 2 * np.sqrt(3)),
    }
    if law in component:
        assert stats.kstest(x[:, 2], component[law].cdf).pvalue > 1e-4
    else:
        assert set(np.unique(x)) == {-1.0, 1.0}
    rotation_invariant = law in ("gaussian", "sphere", "student_t")
    if rotation_invariant:
        assert stats.kstest(oblique, component[law].cdf).pvalue > 1e-4
    if law == "sphere":
        np.testing.assert_allclose(radius, d, rtol=1e-14)
    if law == "student_t":  # |x|^2 5/3 / d has the F distribution
        assert stats.kstest(radius * 5 / 3 / d, stats.f(d, 5).cdf).pvalue > 1e-4
    if not rotation_invariant:  # independent entries: no correlation of other functions of them either
        for f in (np.sign, lambda y: y**3, lambda y: np.cos(y) + y):
            assert (np.abs(np.corrcoef(f(x).T) - np.eye(d)) < 5 / np.sqrt(batch) + 1e-12).all()
        assert abs(np.sign(x).prod(axis=1).mean()) < 5 / np.sqrt(batch)


@pytest.mark.parametrize("seed, replicate, dimension, step", [(1, 0, 10, 0), (2**63 + 5, 3, 77, 2**33 + 1)])
def test_normals_are_those_of_philox_and_box_muller(seed, replicate, dimension, step):
    for isa in probe.isas():
        for count in (1, 15, 16, 17, 5000):
            ours = probe.normals(count, seed, replicate, dimension, probe.INPUT, step, isa)
            theirs = normals_by_numpy(count, seed, replicate, dimension, probe.INPUT, step)
            # NumPy's angle 2 pi u is rounded, ours is exact until the sine: 2 pi eps times a radius of at most 8.5.
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=60 * EPS)


def test_vector_widths_agree():
    """AVX2 and AVX-512 to the bit; without fused multiply-add in a last bit here and there."""
    reference = probe.normals(100_000, seed=3)
    for isa in probe.isas():
        other = probe.normals(100_000, seed=3, isa=isa)
        if isa == "baseline":
            np.testing.assert_allclose(other, reference, rtol=4 * EPS)
        else:
            assert np.array_equal(other, reference), isa


def test_normals_have_the_moments_of_a_normal():
    n = 4_000_000
    x = probe.normals(n, seed=11)
    for power, expected, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)]:
        assert abs((x**power).mean() - expected) < 5 * np.sqrt(variance / n), power
    assert abs((x[:-1] * x[1:]).mean()) < 5 / np.sqrt(n)
    assert abs((x[:-8] * x[8:]).mean()) < 5 / np.sqrt(n), "the two normals of a pair"
    tail = 2.866515719e-7  # P(x > 5), tables
    assert abs((np.abs(x) > 5).sum() - 2 * n * tail) < 5 * np.sqrt(2 * n * tail)


def test_streams_are_keyed_by_everything_and_by_nothing_else():
    base = probe.normals(64)
    for other in (dict(seed=2), dict(replicate=1), dict(dimension=11), dict(purpose=probe.TEACHER), dict(step=1)):
        assert abs(np.corrcoef(base, probe.normals(64, **other))[0, 1]) < 0.5, other
    small, large = probe.inputs(1, 0, 10, 7, 16), probe.inputs(1, 0, 10, 7, 200)
    assert np.array_equal(small, large[:16]), "a sample must not depend on the batch"


# -- Teacher and student -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", [1, 2, 10, 100, 300])
def test_spectral_norm_of_the_teacher_is_the_bound(dimension):
    for bound in (0.0, 0.5, 2.0, 17.0):
        teacher, _ = probe.model(1, 0, dimension, bound, 0)
        norm = np.linalg.norm(teacher - np.eye(dimension), 2)
        assert abs(norm - bound) <= 1e-12 * max(bound, 1)


def test_initial_weights():
    d = 200
    _, zero = probe.model(1, 0, d, 1, 0)
    assert np.array_equal(zero, np.eye(d))
    _, vanilla = probe.model(1, 0, d, 1, 0, probe.NONE)
    assert not vanilla.any()
    _, one = probe.model(1, 0, d, 1, 1)
    _, two = probe.model(1, 0, d, 1, 2, probe.NONE)
    np.testing.assert_allclose(2 * (one - np.eye(d)), two, atol=4 * EPS)  # 1 + w is rounded at 1
    entries = two / 2 * np.sqrt(d)
    assert abs(entries.mean()) < 5 / d and abs(entries.var() - 1) < 5 * np.sqrt(2) / d
    other, _ = probe.model(1, 1, d, 1, 1)
    same, _ = probe.model(1, 0, d, 1, 3)
    first, _ = probe.model(1, 0, d, 1, 1)
    assert np.array_equal(same, first) and not np.allclose(other, first)


@pytest.mark.parametrize("dimension", [1, 2, 3, 7, 8, 31, 47, 48, 100, 400])
def test_spectral_norm_against_svd(dimension):
    rng = np.random.default_rng(dimension)
    random = rng.standard_normal((dimension, dimension))
    u, s, v = np.linalg.svd(random)
    clustered = 1 - 1e-9 * np.arange(dimension)
    cases = {
        "gaussian": random,
        "identity": np.eye(dimension),
        "orthogonal": u,
        "rank one": np.outer(u[0], v[0]),
        "clustered": u * clustered @ v,
        "huge": random * 1e200,
        "tiny": random * 1e-200,
        "triangular": np.triu(np.ones((dimension, dimension))),
    }
    for name, matrix in cases.items():
        scale = np.abs(matrix).max()
        expected = np.linalg.norm(matrix / scale, 2) * scale
        tolerance = 1e-10 if name == "clustered" else 1e-13  # Lanczos stops at a residual of 1e-10
        assert abs(probe.spectral_norm(matrix) - expected) <= tolerance * expected, name
    assert probe.spectral_norm(np.zeros((dimension, dimension))) == 0
    random[0, 0] = np.nan
    assert np.isnan(probe.spectral_norm(random))


# -- The landscape -----------------------------------------------------------------------------------------------------

mpmath.mp.dps = 60


def exact(teacher, student):
    """L, its gradient's columns and the alignment as the textbook formulas stand, with 60 digits."""
    mp = mpmath
    d = len(teacher)
    a, b = ([[mp.mpf(float(m[i, j])) for i in range(d)] for j in range(d)] for m in (student, teacher))
    dot = lambda x, y: mp.fsum(p * q for p, q in zip(x, y))
    norm = lambda x: mp.sqrt(dot(x, x))

    def angle(x, y):
        if norm(x) == 0 or norm(y) == 0:
            return mp.pi / 2
        return mp.acos(max(mp.mpf(-1), min(mp.mpf(1), dot(x, y) / norm(x) / norm(y))))

    def kernel(x, y):
        t = angle(x, y)
        return norm(x) * norm(y) / (2 * mp.pi) * (mp.sin(t) + (mp.pi - t) * mp.cos(t))

    loss = mp.fsum(
        kernel(a[i], a[j]) - 2 * kernel(a[i], b[j]) + kernel(b[i], b[j]) for i in range(d) for j in range(d)
    )
    gradient = []
    for j in range(d):
        column = [mp.mpf(0)] * d
        if norm(a[j]) != 0:
            for i in range(d):
                for sign, x in ((1, a[i]), (-1, b[i])):
                    t = angle(x, a[j])
                    along = norm(x) * mp.sin(t) / norm(a[j])
                    for q in range(d):
                        column[q] += sign * ((mp.pi - t) * x[q] + along * a[j][q]) / mp.pi
        gradient.append(column)
    delta = [[a[j][q] - b[j][q] for q in range(d)] for j in range(d)]
    squares = mp.fsum(x * x for column in delta for x in column)
    along = mp.fsum(gradient[j][q] * delta[j][q] for j in range(d) for q in range(d))
    return loss, gradient, along / squares if squares else mp.nan


def relative_errors(teacher, student, isa=None):
    """Of the loss, of the gradient in the Frobenius norm, and of the alignment, the last relative to |grad|/|delta|."""
    values, gradient = probe.landscape(teacher, student, isa)
    loss, columns, alignment = exact(teacher, student)
    d = len(teacher)
    size = mpmath.sqrt(mpmath.fsum(x * x for column in columns for x in column))
    gap = mpmath.sqrt(
        mpmath.fsum((mpmath.mpf(float(gradient[q, j])) - columns[j][q]) ** 2 for j in range(d) for q in range(d))
    )
    scale = size / (values["error"] * np.sqrt(d))
    return (
        float(abs(values["loss"] - loss) / loss),
        float(gap / size),
        float(abs(values["alignment"] - alignment) / scale),
    )


def directions(d, seed=0):
    rng = np.random.default_rng(seed)
    m = rng.standard_normal((d, d))
    return m / np.linalg.norm(m, 2), rng.standard_normal((d, d)) / np.sqrt(d)


@pytest.mark.parametrize("d", [1, 2, 3, 9, 16])
def test_landscape_keeps_its_digits_all_the_way_to_the_teacher(d):
    """No floor: relative errors of rounding from a distance of 3 down to the last bits of A. The bound is a few roundings
    a pair, which add up like a random walk over the d^2 pairs, with room for the conditioning 1/sin of an angle >= 0.05."""
    worst = np.zeros(3)
    for seed, distance in enumerate([3, 1, 0.1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14]):
        m, w = directions(d, seed)
        teacher = np.eye(d) + 0.8 * m
        worst = np.maximum(worst, relative_errors(teacher, teacher + distance * w))
    print(f"d = {d}: worst relative error of loss {worst[0]:.1e}, gradient {worst[1]:.1e}, alignment {worst[2]:.1e}")
    assert (worst < 50 * EPS).all(), worst


@pytest.mark.parametrize("d", [2, 5, 12])
def test_landscape_keeps_its_digits_next_to_a_permuted_teacher(d):
    """The loss has a zero wherever the student's columns are the teacher's in another order; delta is large there."""
    rng = np.random.default_rng(d)
    for seed, distance in enumerate([1e-2, 1e-5, 1e-9, 1e-13]):
        m, w = directions(d, seed)
        teacher = np.eye(d) + 0.5 * m
        order = np.roll(np.arange(d), 1) if seed % 2 else rng.permutation(d)
        student = teacher[:, order] + distance * w
        errors = relative_errors(teacher, student)
        assert errors[0] < 50 * EPS and errors[1] < 50 * EPS, (distance, errors)
        assert abs(errors[2]) < 50 * EPS
    values, gradient = probe.landscape(teacher, np.roll(teacher, 1, axis=1))
    assert values["loss"] == 0 and not gradient.any() and values["error"] > 0.1 and values["alignment"] == 0


def hard_cases(d=5):
    m, w = directions(d, 4)
    eye, teacher = np.eye(d), np.eye(d) + 0.6 * m
    near = teacher + 1e-3 * w
    cases = {"vanilla zero column": (teacher, near * (np.arange(d) > 0)), "teacher zero column": (teacher * (np.arange(d) != 1), near)}
    parallel, antiparallel, both = near.copy(), near.copy(), near.copy()
    parallel[:, 1] = 2 * near[:, 0]
    antiparallel[:, 1] = -3 * near[:, 0]
    both[:, 1], both[:, 2] = teacher[:, 0], -teacher[:, 0]
    cases |= {"parallel": (teacher, parallel), "antiparallel": (teacher, antiparallel), "along the teacher": (teacher, both)}
    for tilt in (1e-3, 1e-7, 1e-12):
        tilted = near.copy()
        tilted[:, 1] = near[:, 0] + tilt * w[:, 1]
        cases[f"parallel up to {tilt:g}"] = (teacher, tilted)
        tilted = near.copy()
        tilted[:, 1] = -near[:, 0] + tilt * w[:, 1]
        cases[f"antiparallel up to {tilt:g}"] = (teacher, tilted)
    cases["student opposite"] = (teacher, -teacher)
    cases["teacher with parallel columns"] = (np.column_stack([teacher[:, 0]] * 2 + [teacher[:, 2:]]), near)
    cases["student tiny"] = (teacher, 1e-140 * w)
    cases["student small"] = (teacher, np.column_stack([2e-3 * w[:, 0], 5e-4 * w[:, 1], near[:, 2:]]))
    cases["teacher small"] = (np.column_stack([1e-5 * w[:, 0], 1e-100 * w[:, 1], near[:, 2:]]), near)
    cases["student far"] = (teacher, 1e8 * w)
    cases["one dimension, opposite"] = (np.array([[1.5]]), np.array([[-0.25]]))
    cases["one dimension, teacher 0"] = (np.array([[0.0]]), np.array([[-0.25]]))
    cases["one dimension, student 0"] = (np.array([[1.5]]), np.array([[0.0]]))
    cases["zero student"] = (teacher, np.zeros((d, d)))
    cases["identity"] = (teacher, eye)
    cases["zero against zero"] = (teacher * (np.arange(d) != 1), near * (np.arange(d) != 1))
    return cases


@pytest.mark.parametrize("name", hard_cases())
def test_landscape_in_hard_places(name):
    teacher, student = hard_cases()[name]
    values, gradient = probe.landscape(teacher, student)
    loss, columns, _ = exact(teacher, student)
    d = len(teacher)
    # A student a thousandth of its teacher costs three digits; below, and elsewhere, none.
    assert abs(values["loss"] - loss) <= 1e-13 * loss
    expected = np.array([[float(columns[j][q]) for j in range(d)] for q in range(d)])
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-13 * max(np.abs(expected).max(), 1e-300))
    if not student.any(axis=0).all():
        assert not gradient[:, ~student.any(axis=0)].any(), "a column of norm 0 has gradient 0"
    np.testing.assert_allclose(values["error"], np.linalg.norm(student - teacher) / np.sqrt(d), rtol=1e-14)


def test_landscape_at_the_teacher_itself():
    teacher = np.eye(4) + directions(4)[0]
    values, gradient = probe.landscape(teacher, teacher)
    assert values["loss"] == values["error"] == values["potential"] == 0 and not gradient.any()
    assert np.isnan(values["alignment"])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_landscape_survives_what_is_not_finite(value):
    teacher = np.eye(9)
    student = np.eye(9)
    student[3, 4] = value
    values, _ = probe.landscape(teacher, student)
    assert np.isnan(values["loss"]) and np.isnan(values["alignment"]) and not np.isfinite(values["error"])


def test_landscape_is_the_same_for_all_instruction_sets():
    for d in (3, 8, 21):
        m, w = directions(d)
        reference, gradient = probe.landscape(np.eye(d) + m, np.eye(d) + w)
        for isa in probe.isas():
            values, other = probe.landscape(np.eye(d) + m, np.eye(d) + w, isa)
            np.testing.assert_allclose(list(values.values()), list(reference.values()), rtol=1e-14)
            np.testing.assert_allclose(other, gradient, rtol=0, atol=1e-14)


def test_potentials():
    d = 30
    m, w = directions(d)
    teacher, student = np.eye(d) + m, np.eye(d) + w
    values, gradient = probe.landscape(teacher, student)
    norms = [np.linalg.norm(x, axis=0) for x in (teacher, student)]
    np.testing.assert_allclose(values["potential"], (norms[0] ** 2 - norms[1] ** 2).sum(), rtol=1e-12)
    np.testing.assert_allclose(values["potential_norm"], (norms[0] - norms[1]).sum(), rtol=1e-12)
    np.testing.assert_allclose(values["gradient_norm"], np.linalg.norm(gradient), rtol=1e-13)
    delta = student - teacher
    np.testing.assert_allclose(values["alignment"], (gradient * delta).sum() / (delta**2).sum(), rtol=1e-13)


def landscape_by_numpy(teacher, student):
    """The textbook formulas as they stand, in double precision."""

    def angles(x, y):
        cosine = x.T @ y / np.outer(np.linalg.norm(x, axis=0), np.linalg.norm(y, axis=0))
        return np.arccos(np.clip(cosine, -1, 1))

    def kernel(x, y):
        t = angles(x, y)
        return (np.outer(np.linalg.norm(x, axis=0), np.linalg.norm(y, axis=0)) / (2 * np.pi)
                * (np.sin(t) + (np.pi - t) * np.cos(t))).sum()

    loss = kernel(student, student) - 2 * kernel(student, teacher) + kernel(teacher, teacher)
    gradient = np.zeros_like(student)
    unit = student / np.linalg.norm(student, axis=0)
    for sign, x in ((1, student), (-1, teacher)):
        t = angles(x, student)
        gradient += sign * (x @ (np.pi - t) + unit * (np.linalg.norm(x, axis=0)[:, None] * np.sin(t)).sum(axis=0)) / np.pi
    return loss, gradient


@pytest.mark.parametrize("d", [100, 1000])
def test_landscape_at_large_dimension_against_numpy(d):
    m, w = directions(d)
    teacher, student = np.eye(d) + 2 * m, np.eye(d) + w
    values, gradient = probe.landscape(teacher, student)
    loss, expected = landscape_by_numpy(teacher, student)
    # What the plain formulas lose: eps times the size of their three sums, d^2/pi; acos of 1 - eps on the diagonal is off by
    # sqrt(eps), which moves the gradient by that times |a_j| a column.
    assert abs(values["loss"] - loss) < 100 * EPS * d * d / np.pi
    assert np.abs(gradient - expected).max() < 1e-7
    np.testing.assert_allclose(np.linalg.norm(gradient - expected) / np.linalg.norm(gradient), 0, atol=1e-9)


def test_gradient_is_the_derivative_of_the_loss():
    """Central differences: error h^2/6 of the third derivative plus eps L/h."""
    d, h = 6, 1e-5
    m, w = directions(d, 2)
    teacher, student = np.eye(d) + m, np.eye(d) + 0.7 * w
    _, gradient = probe.landscape(teacher, student)
    for q in range(d):
        for j in range(d):
            shift = np.zeros((d, d))
            shift[q, j] = h
            plus, minus = (probe.landscape(teacher, student + s * shift)[0]["loss"] for s in (1, -1))
            assert abs((plus - minus) / (2 * h) - gradient[q, j]) < 1e-8


@pytest.mark.parametrize("d, link", [(1, probe.IDENTITY), (4, probe.IDENTITY), (10, probe.NONE), (40, probe.IDENTITY)])
def test_loss_and_gradient_against_monte_carlo(d, link):
    n = 400_000
    teacher, student = probe.model(5, 0, d, 1.2, 0.8, link)
    values, gradient = probe.landscape(teacher, student)
    x = np.random.default_rng(9).standard_normal((n, d))
    z = x @ student
    residual = np.maximum(z, 0).sum(axis=1) - np.maximum(x @ teacher, 0).sum(axis=1)
    squares = residual**2
    assert abs(squares.mean() - values["loss"]) < 5 * squares.std() / np.sqrt(n)
    for j in range(min(d, 4)):
        sample = 2 * (residual * (z[:, j] > 0))[:, None] * x
        assert (np.abs(sample.mean(axis=0) - gradient[:, j]) < 5 * sample.std(axis=0) / np.sqrt(n)).all()


# -- Training ----------------------------------------------------------------------------------------------------------


def schedule_by_numpy(kind, step, steps, decay):
    return [1, 1 / (1 + step / decay), (1 + np.cos(np.pi * step / steps)) / 2][kind]


def sgd_by_numpy(run, d, batch, steps, seed=1, replicate=0, law="gaussian", data=0, rank=1, decay=1.0):
    """Yields (step, A, batch_loss) at every step, the last without an update after it."""
    teacher, student = probe.model(seed, replicate, d, run.teacher_norm, run.init_scale, run.link, run.teacher, rank)
    student = student.copy()
    for step in range(steps + 1):
        x = probe.inputs(seed, replicate, d, step, batch, law, data=data)
        z = x @ student
        labels = np.maximum(x @ teacher, 0).sum(axis=1)
        if run.noise:
            labels += run.noise * probe.noise(seed, replicate, d, step, batch, data)
        residual = np.maximum(z, 0).sum(axis=1) - labels
        yield step, student, (residual**2).mean()
        rate = run.step_size * schedule_by_numpy(run.schedule, step, steps, decay)
        student -= rate * 2 / batch * x.T @ (residual[:, None] * (z > 0))


SHAPES = [(1, 4), (2, 1), (3, 7), (10, 16), (20, 33), (50, 200), (40, 300), (130, 64)]
LAYOUTS = [pytest.param(True, id="lanes"), pytest.param(False, id="matrices")]


@pytest.mark.parametrize("in_lanes", LAYOUTS)
@pytest.mark.parametrize("d, batch", SHAPES)
def test_training_is_the_same_sgd_as_numpy_computes(d, batch, in_lanes):
    steps, records = 40, 12
    unit = min(1, 10 / d)  # the critical step size falls with 1/d
    runs = [Run(0.02 * unit, 0.5, 0.8), Run(0.01 * unit, 1.0, 0.8, probe.NONE), Run(0.03 * unit, 0.0, 1.1)]
    fields, outcomes, finals, students = probe.train(runs, d, batch, steps, records, tolerance=1e-9, in_lanes=in_lanes)
    for r, run in enumerate(runs):
        trajectory = {step: (student.copy(), loss) for step, student, loss in sgd_by_numpy(run, d, batch, steps)}
        link = np.eye(d) if run.link == probe.IDENTITY else 0
        # Forty steps, each with a few roundings relative to |A|, hardly amplified at these step sizes.
        np.testing.assert_allclose(students[r], trajectory[steps][0] - link, rtol=0, atol=1e-12)
        teacher, _ = probe.model(1, 0, d, run.teacher_norm, run.init_scale, run.link)
        for k, step in enumerate(recorded_steps(steps, records)):
            student, batch_loss = trajectory[step]
            values, _ = probe.landscape(teacher, student)
            np.testing.assert_allclose(fields["batch_loss"][r, k], batch_loss, rtol=1e-10, atol=1e-20)
            for name in ("loss", "error", "potential", "potential_norm", "alignment", "gradient_norm"):
                np.testing.assert_allclose(fields[name][r, k], values[name], rtol=1e-9, atol=1e-11, err_msg=name)
            norm = np.linalg.norm(student - link, 2)
            np.testing.assert_allclose(fields["weight_norm"][r, k], norm, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("in_lanes", LAYOUTS)
@pytest.mark.parametrize("law", probe.INPUTS[1:])
def test_training_with_other_inputs(law, in_lanes):
    d, batch, steps = 12, 30, 40
    runs = [Run(0.005, 0.5, 0.8), Run(0.003, 1.0, 0.8, probe.NONE)]
    fields, _, _, students = probe.train(runs, d, batch, steps, 12, tolerance=1e-9, in_lanes=in_lanes, law=law)
    for r, run in enumerate(runs):
        trajectory = {step: (student.copy(), loss) for step, student, loss in sgd_by_numpy(run, d, batch, steps, law=law)}
        link = np.eye(d) if run.link == probe.IDENTITY else 0
        np.testing.assert_allclose(students[r], trajectory[steps][0] - link, rtol=0, atol=1e-12)
        for k, step in enumerate(recorded_steps(steps, 12)):
            np.testing.assert_allclose(fields["batch_loss"][r, k], trajectory[step][1], rtol=1e-10)


@pytest.mark.parametrize("law", probe.INPUTS)
def test_where_the_exact_loss_and_gradient_hold(law):
    """Those of the Gaussian population are the inputs' own for laws that are invariant under rotations, by Monte Carlo; and for the
    others they are not, which is why the file says so."""
    d, batch = 3, 2_000_000
    teacher, student = probe.model(5, 0, d, 1.5, 1.0)
    values, gradient = probe.landscape(teacher, student)
    x = probe.inputs(5, 0, d, 0, batch, law)
    z = x @ student
    residual = np.maximum(z, 0).sum(axis=1) - np.maximum(x @ teacher, 0).sum(axis=1)
    squares = residual**2
    deviation = abs(squares.mean() - values["loss"]) / (squares.std() / np.sqrt(batch))
    terms = 2 * residual[:, None, None] * (z > 0)[:, None, :] * x[:, :, None]
    deviations = np.abs(terms.mean(axis=0) - gradient) / (terms.std(axis=0) / np.sqrt(batch))
    if law in ("gaussian", "sphere", "student_t"):
        assert deviation < 5 and deviations.max() < 5
    else:
        assert max(deviation, deviations.max()) > 20


# -- Sets of samples, noise, teachers, schedules, the population's gradient -------------------------------------------


def shuffled_by_numpy(seed, replicate, d, epoch, count):
    """Fisher and Yates's shuffle with the stream's words."""
    words = wide_words(2 * count, seed, replicate, d, probe.SHUFFLE, epoch).reshape(-1)
    order = list(range(count))
    for drawn, rest in enumerate(range(count, 1, -1)):
        picked = int(words[drawn]) * rest >> 64
        order[rest - 1], order[picked] = order[picked], order[rest - 1]
    return np.array(order)


def uniform_by_numpy(seed, replicate, d, purpose, step, count):
    words = in_stream(wide_words(count, seed, replicate, d, purpose, step).T)[:count]
    return 2 * (words >> np.uint64(12)).astype(float) * 2.0**-52 - 1


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
def test_the_order_of_an_epoch(count):
    for seed, epoch in ((1, 0), (2**63 + 9, 2**33 + 5)):
        order = probe.permutation(seed, 3, 10, epoch, count)
        assert sorted(order) == list(range(count)) and np.array_equal(order, shuffled_by_numpy(seed, 3, 10, epoch, count))
    orders = [probe.permutation(1, 0, 10, epoch, count) for epoch in range(4)]
    assert count < 1000 or len({tuple(order) for order in orders}) == 4


def test_orders_are_equally_likely():
    """Chi squared over the 24 orders of four samples."""
    epochs = 24_000
    codes = [tuple(probe.permutation(1, 0, 10, epoch, 4)) for epoch in range(epochs)]
    counts = np.unique(codes, axis=0, return_counts=True)[1]
    assert len(counts) == 24 and ((counts - 1000) ** 2 / 1000).sum() < stats.chi2(23).ppf(0.9999)


@pytest.mark.parametrize("law", probe.INPUTS)
def test_a_training_set_is_gone_through_by_epochs(law):
    seed, replicate, d, batch, count = 5, 2, 7, 4, 18  # four steps an epoch, two samples left out
    every = np.concatenate([inputs_by_numpy(law, seed, replicate, d, n, 1, probe.DATA) for n in range(count)])
    seen = [probe.inputs(seed, replicate, d, step, batch, law, data=count) for step in range(9)]
    for epoch in range(2):
        order = probe.permutation(seed, replicate, d, epoch, count)
        for step in range(4):
            np.testing.assert_allclose(seen[4 * epoch + step], every[order[step * batch : (step + 1) * batch]], rtol=1e-13, atol=1e-13)
    first, second = (np.concatenate(seen[4 * epoch : 4 * epoch + 4]) for epoch in range(2))
    assert len(np.unique(first, axis=0)) == 16 or law == "rademacher", "without replacement"
    assert not np.array_equal(first, second)
    expected = np.concatenate([inputs_by_numpy(law, seed, replicate, d, n, 1, probe.TEST) for n in range(600)])
    np.testing.assert_allclose(probe.test_set(seed, replicate, d, 600, law), expected, rtol=1e-13, atol=1e-13)


def test_a_set_too_large_to_keep_has_the_same_samples():
    """Beyond 256 MiB each sample is drawn when it is wanted: here sample 3 of both sets."""
    d, few, many = 300, 10, 120_000
    small = {n: probe.inputs(1, 0, d, 0, few, data=few)[i] for i, n in enumerate(probe.permutation(1, 0, d, 0, few))}
    order = probe.permutation(1, 0, d, 0, many)
    step, place = divmod(int(np.flatnonzero(order == 3)[0]), few)
    assert np.array_equal(probe.inputs(1, 0, d, step, few, data=many)[place], small[3])
    assert np.array_equal(probe.test_set(1, 0, d, many)[3], probe.test_set(1, 0, d, few)[3])


def test_noise_of_labels():
    for seed, step, batch in ((1, 0, 40), (2**63 + 9, 2**33 + 5, 3)):
        expected = uniform_by_numpy(seed, 2, 10, probe.NOISE, step, batch)
        for isa in probe.isas():
            np.testing.assert_allclose(probe.noise(seed, 2, 10, step, batch, isa=isa), expected, rtol=4 * EPS, atol=4 * EPS)
    every = uniform_by_numpy(1, 2, 10, probe.DATA_NOISE, 0, 50)
    for step in (0, 1, 7):
        order = probe.permutation(1, 2, 10, step // 2, 50)
        np.testing.assert_allclose(probe.noise(1, 2, 10, step, 20, data=50), every[order[step % 2 * 20 :][:20]], rtol=4 * EPS, atol=4 * EPS)
    many = probe.noise(3, 0, 10, 0, 200_000)
    assert np.abs(many).max() <= 1 and stats.kstest(many, "uniform", (-1, 2)).pvalue > 1e-4


@pytest.mark.parametrize("d", [1, 2, 9, 64, 200])
def test_teachers_have_the_spectral_norm_asked_for(d):
    for kind in range(4):
        for rank in {1, -(-d // 2), d}:
            for bound in (0.0, 0.5, 3.0):
                teacher, _ = probe.model(1, 2, d, bound, 0, kind=kind, rank=rank)
                weights = teacher - np.eye(d)
                assert abs(np.linalg.norm(weights, 2) - bound) <= 1e-12 * max(bound, 1), (kind, rank)
                if bound == 0:
                    continue
                values = np.linalg.svd(weights, compute_uv=False)
                if kind == probe.ORTHOGONAL:
                    np.testing.assert_allclose(values, bound, rtol=1e-12)
                elif kind == probe.LOW_RANK:
                    assert (values > 1e-12 * bound).sum() == rank
                elif kind == probe.DIAGONAL:
                    assert not (weights - np.diag(np.diag(weights))).any()


@pytest.mark.parametrize("d", [1, 2, 9, 64])
def test_teachers_are_those_of_their_definitions(d):
    stream = normals_by_numpy(2 * d * d, 1, 2, d, probe.TEACHER, 0)
    m = stream[: d * d].reshape(d, d).T
    q, r = np.linalg.qr(m)
    directions = {probe.GAUSSIAN: m / np.linalg.norm(m, 2), probe.ORTHOGONAL: q * np.sign(np.diag(r)),
                  probe.DIAGONAL: np.diag(stream[:d] / np.abs(stream[:d]).max())}
    for kind, direction in directions.items():
        teacher, _ = probe.model(1, 2, d, 0.5, 0, kind=kind)
        np.testing.assert_allclose(teacher, np.eye(d) + 0.5 * direction, rtol=0, atol=1e-11)
    for rank in {1, -(-d // 2), d}:
        u, v = stream[: 2 * rank * d].reshape(2, rank, d)
        product = u.T @ v
        teacher, _ = probe.model(1, 2, d, 0.5, 0, kind=probe.LOW_RANK, rank=rank)
        np.testing.assert_allclose(teacher, np.eye(d) + 0.5 * product / np.linalg.norm(product, 2), rtol=0, atol=1e-12)


def test_orthogonal_teachers_are_uniform():
    """Of the Haar measure the trace has mean 0 and variance 1, and so has the trace of the square but for a mean of 1
    (Diaconis & Shahshahani 1994)."""
    d, count = 12, 3000
    traces = np.array([[np.trace(q), np.trace(q @ q)] for q in
                       (probe.model(seed, 0, d, 1, 0, kind=probe.ORTHOGONAL)[0] - np.eye(d) for seed in range(count))])
    assert (np.abs(traces.mean(axis=0) - [0, 1]) < 5 * np.sqrt([1, 2]) / np.sqrt(count)).all()
    assert (np.abs(traces.var(axis=0) / [1, 2] - 1) < 5 * np.sqrt(2 / count) * 1.5).all()


@pytest.mark.parametrize("in_lanes", LAYOUTS)
@pytest.mark.parametrize("data", [0, 100])
def test_training_with_noise_teachers_schedules_and_sets(data, in_lanes):
    """All at once in one group, each run against NumPy."""
    d, batch, steps, records, tests = 11, 30, 40, 12, 700
    runs = [Run(0.02, 0.5, 0.8, probe.IDENTITY, noise, teacher, schedule)
            for noise in (0, 0.3, 1) for teacher in range(4) for schedule in range(3)]
    runs.append(Run(0.01, 1, 0.8, probe.NONE, 0.1, probe.DIAGONAL, probe.COSINE))
    fields, _, _, students = probe.train(runs, d, batch, steps, records, tolerance=1e-9, in_lanes=in_lanes, data=data, test=tests,
                                         rank=3, decay=7)
    x = probe.test_set(1, 0, d, tests)
    for r, run in enumerate(runs):
        trajectory = {step: (student.copy(), loss)
                      for step, student, loss in sgd_by_numpy(run, d, batch, steps, data=data, rank=3, decay=7)}
        link = np.eye(d) if run.link == probe.IDENTITY else 0
        np.testing.assert_allclose(students[r], trajectory[steps][0] - link, rtol=0, atol=1e-12)
        teacher, _ = probe.model(1, 0, d, run.teacher_norm, run.init_scale, run.link, run.teacher, 3)
        for k, step in enumerate(recorded_steps(steps, records)):
            student, batch_loss = trajectory[step]
            np.testing.assert_allclose(fields["batch_loss"][r, k], batch_loss, rtol=1e-10)
            residual = np.maximum(x @ student, 0).sum(axis=1) - np.maximum(x @ teacher, 0).sum(axis=1)
            np.testing.assert_allclose(fields["test_loss"][r, k], (residual**2).mean(), rtol=1e-10)
            np.testing.assert_allclose(fields["error"][r, k], np.linalg.norm(student - teacher) / np.sqrt(d), rtol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 10, 65, 130])
def test_the_population_descends_its_exact_gradient(d):
    """Against the textbook formulas in NumPy, whose gradient keeps eight digits (see above)."""
    steps, records, unit = 30, 8, min(1, 10 / d)
    runs = [Run(0.1 * unit, 0.5, 0.8), Run(0.1 * unit, 1.0, 0.8, probe.NONE), Run(0.2 * unit, 0, 0.5, schedule=probe.INVERSE_TIME)]
    fields, _, _, students = probe.train(runs, d, 0, steps, records, tolerance=1e-12, population=True, test=300, decay=5)
    for r, run in enumerate(runs):
        teacher, student = probe.model(1, 0, d, run.teacher_norm, run.init_scale, run.link)
        student = student.copy()
        for step in range(steps + 1):
            loss, gradient = landscape_by_numpy(teacher, student)
            if step in recorded_steps(steps, records):
                k = recorded_steps(steps, records).index(step)
                np.testing.assert_allclose(fields["loss"][r, k], loss, rtol=1e-6, atol=1e-9 * d * d)
                np.testing.assert_allclose(fields["gradient_norm"][r, k], np.linalg.norm(gradient), rtol=1e-6, atol=1e-6)
                assert fields["batch_loss"][r, k] == fields["loss"][r, k]
            if step < steps:
                student -= run.step_size * schedule_by_numpy(run.schedule, step, steps, 5) * gradient
        np.testing.assert_allclose(students[r] + (np.eye(d) if run.link == probe.IDENTITY else 0), student, rtol=0, atol=1e-6)


def test_the_population_is_the_limit_of_large_batches():
    """Steps of SGD differ from the exact ones by their noise, which falls with the root of the batch size."""
    d, steps, runs = 5, 20, [Run(0.05, 0.5, 0.5)]
    exact = probe.train(runs, d, 0, steps, 4, tolerance=1e-9, population=True)[3]
    distances = [np.linalg.norm(probe.train(runs, d, batch, steps, 4, tolerance=1e-9, replicate=0)[3] - exact) for batch in (64, 4096, 65536)]
    assert distances[0] > 3 * distances[1] > 6 * distances[2] and distances[2] < 0.01


def test_test_loss_estimates_the_loss():
    d, tests = 6, 200_000
    fields, _, _, _ = probe.train([Run(0.01, 1, 0.5)], d, 20, 50, 4, test=tests)
    ratio = fields["test_loss"] / fields["loss"]
    assert (np.abs(ratio - 1) < 0.03).all() and (ratio != 1).all()  # the standard error of the square of a residual over its mean


def recorded_steps(steps, count):
    """The rule of the config, independently: 0 and log-spaced up to `steps`, all distinct; where log spacing would be
    closer than 1 the steps are consecutive and the rest is spaced anew from there."""
    ret = [0]
    for i in range(1, count - 1):
        spaced = ret[-1] + 1
        if ret[-1] > 0:
            spaced = max(spaced, int(np.floor(ret[-1] * (steps / ret[-1]) ** (1 / (count - i)) + 0.5)))
        ret.append(min(spaced, steps - (count - 1 - i)))
    return ret + [steps]


def test_training_is_the_same_sgd_as_pytorch_computes():
    torch = pytest.importorskip("torch")
    torch.set_default_dtype(torch.float64)
    d, batch, steps = 20, 32, 60
    for run in (Run(0.02, 1.0, 0.7), Run(0.01, 1.0, 0.7, probe.NONE)):
        teacher, start = probe.model(1, 0, d, run.teacher_norm, run.init_scale, run.link)
        link = torch.eye(d) if run.link == probe.IDENTITY else torch.zeros(d, d)
        weights = (torch.tensor(start.copy()) - link).requires_grad_()
        optimizer = torch.optim.SGD([weights], lr=run.step_size)
        for step in range(steps):
            x = torch.tensor(np.ascontiguousarray(probe.inputs(1, 0, d, step, batch)))
            target = torch.relu(x @ torch.tensor(teacher.copy())).sum(1)
            loss = ((torch.relu(x @ (link + weights)).sum(1) - target) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        _, _, _, students = probe.train([run], d, batch, steps, 5, tolerance=1e-9)
        np.testing.assert_allclose(students[0], weights.detach().numpy(), rtol=0, atol=1e-12)


def many_runs(count):
    """Step sizes from hopeless to explosive, so that runs leave at all times."""
    rng = np.random.default_rng(3)
    sizes = 10 ** rng.uniform(-3, 0.7, count)
    return [Run(s, rng.choice([0, 0.5, 1.5]), rng.choice([0.3, 0.6]), int(rng.integers(2))) for s in sizes]


GROUPS = [(1, 4, 70), (5, 1, 70), (10, 16, 90), (7, 13, 70), (33, 8, 25), (50, 20, 18), (64, 200, 14), (150, 16, 4)]


@pytest.mark.parametrize("in_lanes", LAYOUTS)
@pytest.mark.parametrize("d, batch, count", GROUPS)
def test_a_run_does_not_see_its_neighbours(d, batch, count, in_lanes):
    """The bits of a run are the same with its whole group, with part of it, and alone, and however the work is sliced."""
    runs = many_runs(count)
    steps, records = 120, 10
    whole = probe.train(runs, d, batch, steps, records, tolerance=0.02, in_lanes=in_lanes)
    outcomes = whole[1][:, 0]
    assert len(set(outcomes)) > 1, "the runs must leave at different times for this test to mean anything"
    some = sorted({0, 1, count // 3, count // 2, count - 1})
    parts = [some] + [[i] for i in some] + [list(range(1, count, 2))]
    for part in parts:
        fields, results, finals, students = probe.train(
            [runs[i] for i in part], d, batch, steps, records, tolerance=0.02, slice=0, in_lanes=in_lanes
        )
        for name in fields:
            assert np.array_equal(fields[name], whole[0][name][part], equal_nan=True), (name, part)
        assert np.array_equal(results, whole[1][part])
        assert np.array_equal(finals[:, :2], whole[2][part][:, :2], equal_nan=True)
        assert np.array_equal(students, whole[3][part], equal_nan=True)


@pytest.mark.parametrize("d, batch, count", [(1, 3, 9), (10, 16, 20), (13, 1, 11), (33, 150, 12), (64, 40, 9)])
def test_widths_of_vectors_give_the_same_training(d, batch, count):
    runs = many_runs(count)
    reference = probe.train(runs, d, batch, 100, 8)
    for isa in probe.isas():
        if isa != "baseline":
            fields, outcomes, finals, students = probe.train(runs, d, batch, 100, 8, isa=isa)
            assert np.array_equal(students, reference[3], equal_nan=True), isa
            assert np.array_equal(outcomes, reference[1]) and np.array_equal(finals[:, :2], reference[2][:, :2], equal_nan=True)
            for name in fields:
                assert np.array_equal(fields[name], reference[0][name], equal_nan=True), (isa, name)


def test_the_layouts_train_alike():
    """Sums are rounded differently; where nothing amplifies it, by little."""
    runs = [Run(0.01, s, 0.5) for s in (0, 0.5, 1)]
    lanes, matrices = (probe.train(runs, 12, 20, 200, 6, tolerance=1e-9, in_lanes=layout) for layout in (True, False))
    np.testing.assert_allclose(lanes[3], matrices[3], rtol=0, atol=1e-12)


def test_outcomes():
    """A run of each outcome, with what belongs to it."""
    d, batch, steps, records = 10, 64, 4000, 20
    runs = [Run(0.02, 0, 0.5), Run(50.0, 1, 0.5), Run(1e-9, 1, 0.5), Run(2e-5, 1, 0.5), Run(0.01, 0, 0.0)]
    fields, outcomes, finals, students = probe.train(runs, d, batch, steps, records, tolerance=1e-3)
    assert outcomes[:, 0].tolist() == [probe.CONVERGED, probe.DIVERGED, probe.STALLED, probe.UNFINISHED, probe.CONVERGED]
    assert outcomes[2:4, 1].tolist() == [steps, steps] and outcomes[2:4, 2].tolist() == [-1, -1]
    assert outcomes[0, 1] == outcomes[0, 2] < steps and outcomes[4].tolist() == [probe.CONVERGED, 0, 0, -1]
    assert finals[0, 0] <= 1e-3 and finals[4, 0] == 0 and finals[4, 1] == 0
    assert finals[1, 0] > 1e3
    # Nothing is recorded after the end, everything before it.
    at = np.array(recorded_steps(steps, records))
    for r in range(len(runs)):
        reached = at <= outcomes[r, 1]
        assert np.isfinite(fields["error"][r, reached]).all() or outcomes[r, 0] == probe.DIVERGED
        assert np.isnan(fields["error"][r, ~reached]).all()
    # The first step at which the error is within the tolerance, from the same SGD in NumPy.
    teacher, _ = probe.model(1, 0, d, 0.5, 0)
    for step, student, _ in sgd_by_numpy(runs[0], d, batch, steps):
        if np.linalg.norm(student - teacher) / np.sqrt(d) <= 1e-3:
            break
    assert step == outcomes[0, 2]
    np.testing.assert_allclose(finals[0, 1], probe.landscape(teacher, student)[0]["loss"], rtol=1e-6)


def test_phase_two():
    runs = [Run(0.01, s, 1.5) for s in (0, 0.5, 1, 2)]
    d, steps, records = 20, 3000, 40
    fields, outcomes, _, _ = probe.train(runs, d, 50, steps, records, tolerance=1e-9)
    at = recorded_steps(steps, records)
    for r in range(len(runs)):
        g1, rho = fields["potential_norm"][r], fields["alignment"][r]
        good = (rho > 0) & (np.abs(g1) <= max(0.1 * abs(g1[0]), 0.01 * np.sqrt(d)))
        first = records
        while first > 0 and good[first - 1]:
            first -= 1
        assert outcomes[r, 3] == (at[first] if first < records else -1)
