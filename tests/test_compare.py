"""Comparisons run against run: the statistics against published values and by simulation, the pairs by what is known."""
from __future__ import annotations

import itertools
import json
import math

import h5py
import numpy as np
import pytest
import xarray as xr
from conftest import OUTCOMES, write_sweep
from test_analysis import DEFICIENCIES, assert_tidy, cielab, run

from sgdmap_analysis import ArgumentError, compare, open_sweep
from sgdmap_analysis.compare import (
    align, benjamini_hochberg, between, clustered_difference, clustered_median, config_value, holm, mcnemar_test, median_interval,
    newcombe_paired_interval, student_quantile)

FINAL = OUTCOMES[2:6]


# -- Statistics --------------------------------------------------------------------------------------------------------


def test_newcombe_against_published_values():
    # M. W. Fagerland, S. Lydersen, P. Laake, Statistical Analysis of Contingency Tables (2017), chapter 8: complete
    # response before and after consolidation therapy (Cavo et al. 2012), 59, 6, 16, 80: first minus second -0.0621
    # (-0.1186 to -0.0046).
    low, high = newcombe_paired_interval(59, 6, 16, 80)
    assert (float(low), float(high)) == (pytest.approx(0.0046, abs=5e-5), pytest.approx(0.1186, abs=5e-5))


def test_newcombe_is_symmetric_and_stays_inside():
    tables = np.array([table for table in itertools.product(range(7), repeat=4) if sum(table) == 6]).T
    low, high = newcombe_paired_interval(*tables)
    difference = (tables[2] - tables[1]) / 6
    assert (-1 <= low).all() and (low < difference + 1e-12).all() and (difference - 1e-12 < high).all() and (high <= 1).all()
    mirrored = newcombe_paired_interval(*tables[[0, 2, 1, 3]])
    np.testing.assert_allclose(mirrored, [-high, -low], atol=1e-12)
    np.testing.assert_allclose(newcombe_paired_interval(*tables[[3, 2, 1, 0]]), [-high, -low], atol=1e-12)
    assert newcombe_paired_interval(0, 0, 0, 0) == (-1, 1)


def all_tables(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Each table of n pairs [4, tables], and log of the ways to it."""
    tables = np.array([(a, b, c, n - a - b - c) for a in range(n + 1) for b in range(n + 1 - a) for c in range(n + 1 - a - b)]).T
    ways = math.lgamma(n + 1) - np.vectorize(math.lgamma)(tables + 1.0).sum(0)
    return tables, ways


@pytest.mark.parametrize("n", [4, 6, 20])
def test_newcombe_mean_coverage(n):
    # Exactly, by summing over all tables, for 4000 multinomials drawn evenly. Newcombe's own table has a mean of 0.952
    # over n from 10 to 100. Here it is 0.9525, 0.9553 and 0.9543; the textbook interval has 0.72 at n = 4.
    tables, ways = all_tables(n)
    low, high = newcombe_paired_interval(*tables)
    p = np.random.default_rng(1).dirichlet(np.ones(4), 4000)
    probability = np.exp(np.log(p) @ tables + ways)
    difference = (p[:, 2] - p[:, 1])[:, None]
    coverage = (probability * ((low <= difference) & (difference <= high))).sum(1)
    assert probability.sum(1) == pytest.approx(1)
    assert coverage.mean() == pytest.approx(0.954, abs=0.004) and coverage.min() > 0.8


@pytest.mark.parametrize("b, c, exact, mid", [(1, 7, 0.070, 0.039), (6, 16, 0.052, 0.035)])
def test_mcnemar_against_published_values(b, c, exact, mid):
    # Fagerland, Lydersen, Laake, BMC Med. Res. Methodol. 13 (2013) 91, Table 1 (airway hyper-responsiveness, Bentur
    # et al. 2009); and their book (2017), chapter 8 (Cavo et al. 2012).
    p = mcnemar_test(b, c)
    assert (float(p[0]), float(p[1])) == (pytest.approx(exact, abs=6e-4), pytest.approx(mid, abs=6e-4))
    assert mcnemar_test(c, b) == p


def test_mcnemar_is_the_fair_coin_s():
    for n in (0, 1, 5, 8, 31):
        weights = [math.comb(n, k) / 2**n for k in range(n + 1)]
        for b in range(n + 1):
            tail = sum(weights[: min(b, n - b) + 1])
            exact, mid = mcnemar_test(b, n - b)
            assert float(exact) == pytest.approx(min(1, 2 * tail))
            assert float(mid) == pytest.approx(min(1, 2 * tail - weights[b]) if n else 1)
    # Many pairs: the normal approximation with its continuity correction.
    p, _ = mcnemar_test([9_800, 9_900, 1000], [10_200, 10_100, 19_000])
    assert p[:2] == pytest.approx([math.erfc((more - 1) / math.sqrt(20_000) / math.sqrt(2)) for more in (400, 200)], rel=0.01)
    assert 0 <= p[2] < 1e-300


@pytest.mark.parametrize("n", [6, 20, 60])
def test_mcnemar_s_size(n):
    # Exactly: of n pairs, the discordant ones are binomial. The exact test never exceeds the level, the mid-p hardly
    # does.
    tables = [(b, d - b, d) for d in range(n + 1) for b in range(d + 1)]
    b, c, d = np.array(tables).T
    rejects = np.array([p <= 0.05 for p in mcnemar_test(b, c)])
    for share in (0.2, 0.5, 0.9):
        ways = [math.comb(n, int(k)) * share**k * (1 - share) ** (n - k) * math.comb(int(k), int(i)) / 2.0**k for i, k in zip(b, d)]
        exact, mid = rejects @ np.array(ways)
        assert exact <= 0.05 and exact <= mid <= 0.055
    assert mid > 0.02


def test_adjusted_p_values():
    # Benjamini & Hochberg 1995, section 4.1: of fifteen, their procedure rejects four at 0.05, Bonferroni's three; so
    # does Holm's.
    p = np.array([0.0344, 0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0])
    assert (benjamini_hochberg(p) <= 0.05).sum() == 4 and (holm(p) <= 0.05).sum() == 3
    assert holm(p)[[1, 2, 3]] == pytest.approx([15 * 0.0001, 14 * 0.0004, 13 * 0.0019])
    assert benjamini_hochberg(p)[[1, 4, 14]] == pytest.approx([0.0015, 0.0095 * 15 / 4, 1.0])
    with_holes = np.insert(p, [0, 7], np.nan).reshape(1, 17)
    np.testing.assert_array_equal(holm(with_holes)[np.isfinite(with_holes)], holm(p))
    assert np.isnan(holm(with_holes)[0, 0]) and (np.diff(benjamini_hochberg(np.sort(p))) >= 0).all()


def test_student_quantiles():
    # Abramowitz & Stegun, Table 26.10.
    for df, p, t in ((1, 0.975, 12.706), (2, 0.975, 4.303), (3, 0.995, 5.841), (7, 0.975, 2.365), (30, 0.95, 1.697), (120, 0.975, 1.980)):
        assert student_quantile(p, df) == pytest.approx(t, abs=6e-4)
    assert student_quantile(0.975, 10**6) == pytest.approx(1.959964, abs=1e-5)


def test_the_median_s_interval():
    values = np.array([[3.0, 1, 2, 6, 5, 4, np.nan], [1, 2, 3, np.nan, np.nan, np.nan, np.nan], [np.nan] * 7])
    count, median, low, high = median_interval(values)
    assert count.tolist() == [6, 3, 0] and median[:2].tolist() == [3.5, 2] and np.isnan(median[2])
    assert (low[0], high[0]) == (1, 6) and np.isnan(low[1:]).all() and np.isnan(high[1:]).all()
    # David & Nagaraja 2003, section 7.1: 9 values between the 2nd and the 8th, with 0.961.
    assert [float(x) for x in median_interval(np.arange(1.0, 10))[2:]] == [2, 8]
    random = np.random.default_rng(2).standard_cauchy((20_000, 15))
    _, _, low, high = median_interval(random)
    assert np.mean((low < 0) & (0 < high)) == pytest.approx(0.9648, abs=0.006)  # by the binomial; 4 standard errors


def clustered_runs(random, effect: float, strata: int, clusters: int, per: int = 30):
    """(first, second) [clusters, pairs]: runs that converge or not by thresholds which a cluster's runs share."""
    count = strata * clusters
    own = random.normal(0, 1, (count, 2))[:, :, None]
    base = np.linspace(-1.5, 1.5, per) + np.repeat(np.arange(strata), clusters)[:, None] * 0.4
    noise = random.normal(0, 0.3, (count, 2, per))
    return ((base[:, None] + own + noise) > np.array([0, -effect])[:, None]).transpose(1, 0, 2)


@pytest.mark.parametrize("strata, clusters", [(2, 4), (1, 12)])
def test_clusters_keep_to_the_level_where_pairs_do_not(strata, clusters):
    random = np.random.default_rng(3)
    stratum = np.repeat(np.arange(strata), clusters)
    pairs = np.full(stratum.size, 30)
    truth = np.mean([np.subtract(*clustered_runs(random, 0.5, strata, clusters)[::-1].astype(int)).mean() for _ in range(3000)])
    rejected, naive, covered = [], [], []
    for _ in range(600):
        first, second = clustered_runs(random, 0.0, strata, clusters)
        same = clustered_difference((second.astype(int) - first).sum(1), pairs, stratum)
        rejected.append(same["p"] <= 0.05)
        naive.append(mcnemar_test((first & ~second).sum(), (second & ~first).sum())[0] <= 0.05)
        first, second = clustered_runs(random, 0.5, strata, clusters)
        other = clustered_difference((second.astype(int) - first).sum(1), pairs, stratum)
        covered.append(other["low"] <= truth <= other["high"])
    # Standard errors are 0.009; the test is exact, with at most 0.05.
    assert np.mean(rejected) < 0.08 and np.mean(covered) == pytest.approx(0.95, abs=0.035)
    assert np.mean(naive) > 0.5  # what the clusters are for


@pytest.mark.parametrize("strata, clusters", [(2, 4), (1, 12)])
def test_the_clustered_median_s_interval_covers(strata, clusters):
    random = np.random.default_rng(4)
    stratum = np.repeat(np.arange(strata), clusters)
    cluster = np.repeat(np.arange(stratum.size), 15)
    covered = []
    for _ in range(300):
        values = random.normal(0, 1, stratum.size)[cluster] + random.normal(0, 1, cluster.size)
        ret = clustered_median(values, cluster, stratum)
        covered.append(ret["low"] <= 0 <= ret["high"])
    assert np.mean(covered) == pytest.approx(0.955, abs=0.04)
    assert ret["n"] == cluster.size and ret["clusters"] == stratum.size
    one = clustered_median(np.array([1.0, 2.0, 4.0]), np.zeros(3, int), stratum)
    assert one["median"] == 2 and np.isnan(one["low"]) and clustered_median(np.empty(0), np.empty(0, int), stratum)["n"] == 0


def test_a_large_sample_s_median_is_resampled_in_bins():
    random = np.random.default_rng(5)
    cluster = np.repeat(np.arange(10), 20_000)
    values = random.normal(0, 1, 10)[cluster] + random.normal(0, 1, cluster.size)
    ret = clustered_median(values, cluster, np.zeros(10, int))
    small = clustered_median(values[::100], cluster[::100], np.zeros(10, int))
    assert ret["median"] == np.median(values)
    assert ret["high"] - ret["low"] == pytest.approx(small["high"] - small["low"], rel=0.15)


def test_few_clusters():
    one = clustered_difference(np.array([3]), np.array([10]), np.array([0]))
    assert one["difference"] == 0.3 and np.isnan(one["low"]) and one["p"] == 1.0 and one["smallest_p"] == 1.0
    # Four clusters that all go one way: 2 of 16 ways to flip signs.
    four = clustered_difference(np.array([1, 2, 3, 4]), np.full(4, 5), np.array([0, 1, 2, 3]))
    assert four["p"] == four["smallest_p"] == 0.125 and four["df"] == 3
    # By hand: mean 0.5, clusters' means 0.2 ... 0.8, standard deviation 0.2582, t of 3 degrees 3.1824.
    assert four["high"] - four["difference"] == pytest.approx(3.1824 * 0.2582 / 2, rel=1e-4)
    assert clustered_difference(np.zeros(2, int), np.zeros(2, int), np.zeros(2, int))["clusters"] == 0


# -- Pairs -------------------------------------------------------------------------------------------------------------

GRID = {"dimension": [10, 20], "link": ["identity", "none"], "step_size": [1e-3, 1e-2, 1e-1], "init_scale": [0.0, 1.0, 2.0],
        "replicate": range(4)}


def by_link(setting):
    """Identity converges below 0.05 in `10 d` steps; none only at the smallest step, twice as slow, and never in replicate 0."""
    slow = setting["link"] == "none"
    if setting["step_size"] > 0.05:
        return "diverged", 5, 1e9
    if slow and (setting["step_size"] > 5e-3 or setting["replicate"] == 0):
        return "stalled", 1000, 0.5
    steps = 10 * setting["dimension"] + setting["replicate"]
    return "converged", steps * (2 if slow else 1), 1e-4 * (10 if slow else 1)


@pytest.mark.parametrize("shuffled", [False, True])
def test_values_of_an_axis_are_paired(sweep_file, shuffled):
    order = np.random.default_rng(0).permutation(144) if shuffled else None
    pairs = between(open_sweep(sweep_file(GRID, by_link, order=order)), "link", ["identity", "none"])
    settings, summary = compare.compare(pairs)
    assert pairs.sharing == "inputs" and pairs.notes == [] and summary["pairs"] == 72 and summary["without_outcome"] == 0
    at = {step: settings.sel(step_size=step, dimension=20, init_scale=1.0).squeeze() for step in (1e-3, 1e-2, 1e-1)}
    assert [[int(at[step][name]) for name in ("both", "only_first", "only_second", "neither")] for step in at] == [
        [3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 4]]
    assert [float(at[step].difference) for step in at] == [-0.25, -1, 0]
    assert float(at[1e-2].p) == 0.125 and float(at[1e-3].p) == 1 and float(at[1e-2].p_mid) == 0.0625
    low, high = newcombe_paired_interval(3, 1, 0, 0)
    assert (float(at[1e-3].low), float(at[1e-3].high)) == (low, high)
    assert int(at[1e-3].error_n) == 3 and float(at[1e-3].error_median) == pytest.approx(1)
    assert float(at[1e-3].steps_median) == 202 and float(at[1e-3].speed_median) == pytest.approx(np.log10(2))
    assert np.isnan(float(at[1e-2].steps_median)) and np.isnan(float(at[1e-3].steps_low))
    # 2 dimensions x 3 scales: 18 of 24 pairs at the smallest step, and 24, 24 at the others.
    assert summary["table"].tolist() == [[18, 0, 30, 0], [0, 24, 0, 0], [0] * 4, [0] * 4]
    converged = summary["outcomes"]["converged"]
    assert converged["first"] == pytest.approx(2 / 3) and converged["second"] == 0.25 and converged["clusters"] == 8
    assert converged["difference"] == pytest.approx(-30 / 72) and converged["p"] == 2 / 2**8
    assert converged["low"] < -30 / 72 < converged["high"]
    assert summary["outcomes"]["diverged"]["difference"] == 0 and summary["outcomes"]["diverged"]["p"] == 1
    assert summary["outcomes"]["diverged"]["low"] < -0.05  # all clusters alike, and yet not sure
    assert summary["speed"]["median"] == pytest.approx(np.log10(2)) and summary["error_undiverged"]["n"] == 48
    # The other way round, all signs are.
    mirrored, _ = compare.compare(between(open_sweep(sweep_file(GRID, by_link, order=order)), "link", ["none", "identity"]))
    for name in ("difference", "error_median", "steps_median", "speed_median"):
        np.testing.assert_allclose(mirrored[name].values, -settings[name].values)
    np.testing.assert_allclose(mirrored.low.values, -settings.high.values)


def test_a_pair_needs_two_outcomes(sweep_file):
    def model(setting):
        statuses = ("converged", "pending", "failed", "running", "converged", "diverged")
        if setting["link"] == "none":
            statuses = statuses[1:] + statuses[:1]
        return statuses[setting["replicate"]], 100, 1e-4

    settings, summary = compare.compare(between(open_sweep(sweep_file({**GRID, "replicate": range(6)}, model)), "link",
                                                ["identity", "none"]))
    # Only of the last two replicates: converged then diverged, diverged then converged.
    assert (settings.n == 2).all() and (settings.only_first == 1).all() and (settings.only_second == 1).all()
    assert summary["pairs"] == 36 and summary["without_outcome"] == 72 and summary["outcomes"]["converged"]["first"] == 0.5
    none, empty = compare.compare(between(open_sweep(sweep_file(GRID, lambda setting: ("pending", 0, 0.0))), "link",
                                          ["identity", "none"]))
    assert np.isnan(none.difference).all() and np.isnan(none.p_holm).all() and empty["pairs"] == 0 and empty["settings"] == 0
    assert (none.low == -1).all() and (none.high == 1).all()


def test_settings_in_common_are_found(sweep_file):
    first = {"dimension": [10, 20], "step_size": np.geomspace(1e-4, 1, 5), "replicate": range(3)}
    second = {"dimension": [20, 50], "step_size": np.array([1.0, 0.1, 0.01, 0.3]) * (1 + 1e-9), "replicate": range(2)}

    def model(scale):
        return lambda setting: ("converged", 10, setting["step_size"] * scale)

    pairs = align(open_sweep(sweep_file(first, model(1), name="a.nc")), open_sweep(sweep_file(second, model(100), name="b.nc")), ("a", "b"))
    settings, summary = compare.compare(pairs)
    assert settings.dimension.values.tolist() == [20] and np.round(settings.step_size.values, 6).tolist() == [0.01, 0.1, 1.0]
    assert (settings.n == 2).all() and summary["error"]["median"] == pytest.approx(2)
    np.testing.assert_allclose(settings.error_median.values, 2, atol=1e-6)
    # 2 x 5 x 2 settings against 1 x 3 x 2, and 2 x 4 x 2.
    assert [only["settings"] for only in pairs.only] == [14, 10]
    assert pairs.only[0]["values"]["dimension"].tolist() == [10] and pairs.only[0]["values"]["replicate"].tolist() == [2]
    assert list(pairs.only[1]["values"]) == ["dimension", "step_size"]
    assert pairs.sharing == "inputs" and pairs.names == ("a", "b")
    lines = "\n".join(compare.summary_lines(pairs, settings, summary))
    assert "only in a: 14 settings (dimension 10; replicate 2; step_size 0.0001, 0.001)" in lines


def test_files_that_differ_in_one_value(sweep_file):
    first, second = (open_sweep(sweep_file({**GRID, "link": [link]}, by_link, name=f"{link}.nc")) for link in ("identity", "none"))
    pairs = align(first, second, ("a", "b"))
    assert pairs.compared == ("link",) and pairs.names == ("link=identity", "link=none") and pairs.sharing == "inputs"
    one, _ = compare.compare(pairs)
    other, _ = compare.compare(between(open_sweep(sweep_file(GRID, by_link)), "link", ["identity", "none"]))
    xr.testing.assert_allclose(one.drop_vars("link"), other.drop_vars("link"))
    third = open_sweep(sweep_file({**GRID, "link": ["none"], "dimension": [10, 30]}, by_link, name="third.nc"))
    with pytest.raises(ArgumentError, match="no setting is in both files: step_size has 0.5 in a and 0.001, 0.01"):
        align(open_sweep(sweep_file({"step_size": [0.5]}, name="fourth.nc")), third, ("a", "b"))


@pytest.mark.parametrize("axis, values, sharing", [
    ("init_scale", [0, 1], "inputs"), ("batch_size", [100, 200], "directions"), ("dimension", [10, 20], "nothing"),
    ("noise", [0, 0.1], "inputs"), ("schedule", ["constant", "cosine"], "inputs"), ("teacher", ["gaussian", "diagonal"], "inputs"),
    ("gradient", ["minibatch", "population"], "directions"), ("data", [0, 1000], "directions")])
def test_what_pairs_share(sweep_file, axis, values, sharing):
    pairs = between(open_sweep(sweep_file({"dimension": [10, 20], axis: values})), axis, values)
    assert pairs.sharing == sharing and len(pairs.notes) == (sharing != "inputs" or axis == "teacher")
    files = [open_sweep(sweep_file({axis: [value]}, name=f"{value}.nc")) for value in values]
    assert align(*files, ("a", "b")).sharing == sharing


def test_an_axis_that_a_file_lacks_has_its_default(sweep_file):
    """An old file beside one with axes of its own: its runs are those at the defaults."""
    def model(setting):
        return "converged", 100, 1e-3 * (1 + setting.get("noise", 0)) * (2 if setting.get("schedule") == "cosine" else 1)

    old = open_sweep(sweep_file({}, model, name="old.nc"))
    new = open_sweep(sweep_file({"noise": [0.0, 0.1], "data": [0, 1000], "schedule": ["constant", "cosine"]}, model, name="new.nc"))
    for first, second, place in ((old, new, 1), (new, old, 0)):
        pairs = align(first, second, ("a", "b"))
        assert pairs.compared == () and pairs.sharing == "inputs"
        assert pairs.only[1 - place]["settings"] == 0 and pairs.only[place]["settings"] == 7 * 6
        assert {name: values.tolist() for name, values in pairs.only[place]["values"].items()} == {
            "data": [1000], "noise": [0.1], "schedule": ["cosine"]}
        settings, summary = compare.compare(pairs)
        assert summary["pairs"] == 12 and summary["error"]["median"] == 0
        assert settings.data.values.tolist() == [0] and settings.schedule.values.tolist() == ["constant"]
        assert "data 1000; noise 0.1; schedule cosine" in "\n".join(compare.summary_lines(pairs, settings, summary))
    cosine = open_sweep(sweep_file({"schedule": ["cosine"]}, model, name="cosine.nc"))
    pairs = align(old, cosine, ("a", "b"))
    assert pairs.compared == ("schedule",) and pairs.names == ("schedule=constant", "schedule=cosine")
    assert compare.compare(pairs)[1]["error"]["median"] == pytest.approx(np.log10(2))


def test_without_minibatches_their_size_is_no_difference(sweep_file):
    batches = open_sweep(sweep_file({"batch_size": [50]}, name="a.nc"))
    exact = open_sweep(sweep_file({"batch_size": [0], "gradient": ["population"]}, name="b.nc"))
    for files, names in (((batches, exact), ("gradient=minibatch", "gradient=population")),
                         ((exact, batches), ("gradient=population", "gradient=minibatch"))):
        pairs = align(*files, ("a", "b"))
        assert pairs.compared == ("gradient",) and pairs.names == names and pairs.first.batch_size.values.tolist() == [50]
        assert compare.compare(pairs)[1]["pairs"] == 12


def test_fresh_samples_are_called_online(sweep_file, capsys, tmp_path):
    path = sweep_file({"data": [0, 1000], "step_size": [1e-3, 1e-2, 1e-1]})
    assert run("compare", path, "--between", "data=online,1000", "-o", tmp_path / "a.png") == 0
    assert "second minus first: data=1000 minus data=online" in capsys.readouterr().out
    assert run("compare", path, "--between", "data=0,1000", "--json") == 0
    assert json.loads(capsys.readouterr().out)["first"] == "data=online"
    assert run("compare", path, "--between", "data=1000,2000", "--json") == 2
    assert "data has no value 2000; it has online, 1000" in capsys.readouterr().err
    assert run("compare", path, "--between", "noise=0,1", "--json") == 2
    assert "'noise' is not an axis of this file, whose runs all have 0" in capsys.readouterr().err


def test_other_settings_of_the_schedule_are_told(sweep_file):
    a, b = (sweep_file({"schedule": ["inverse_time"]}, name=f"{name}.nc") for name in "ab")
    with h5py.File(b, "r+") as file:
        file.attrs["config"] = "seed: 1\ntraining: {decay: 50}\n"
    assert align(open_sweep(a), open_sweep(b), ("a", "b")).notes == ["training.decay is not told in a and 50 in b"]


def test_other_seeds_are_no_pairs(sweep_file):
    a, b = sweep_file(name="a.nc"), sweep_file(name="b.nc")
    with h5py.File(b, "r+") as file:
        file.attrs["config"] = "seed: 2\ntraining: {steps: 5, tolerance: 1.0e-3}\n"
    pairs = align(open_sweep(a), open_sweep(b), ("a", "b"))
    assert pairs.sharing == "nothing" and pairs.notes[0].startswith("a has seed 1 and b has seed 2: their runs share no random numbers")
    assert pairs.notes[1] == "converged means within an unknown tolerance in a and 0.001 in b"
    with h5py.File(b, "r+") as file:
        file.attrs["config_overrides"] = "seed=1\ntraining.tolerance=1e-4\n"
    assert align(open_sweep(a), open_sweep(b), ("a", "b")).sharing == "inputs"


@pytest.mark.parametrize("text, key, value", [
    ("seed: 7 # x\n", "seed", "7"), ("# seed: 1\nseed:  12\n", "seed", "12"), ("seed: 0x10", "seed", "16"), ("title: a\n", "seed", None),
    ("training:\n  steps: 5\n  tolerance: 1.0e-2 # of\n", "training.tolerance", "0.01"),
    ("training: {steps: 5, tolerance: 0.010}\n", "training.tolerance", "0.01"), ("training: {tolerance: 1e-2, steps: 1}", "training.tolerance", "0.01"),
])
def test_the_config_s_values(text, key, value):
    assert config_value({"config": text}, key) == value
    assert config_value({"config": text, "config_overrides": f"grid.step_size=1\n{key}=3\n"}, key) == "3"


# -- The command -------------------------------------------------------------------------------------------------------


def test_json_and_table(sweep_file, capsys, tmp_path):
    path, table = sweep_file(GRID, by_link), tmp_path / "settings.csv"
    assert run("compare", path, "--between", "link=identity,none", "--json", "--table", table, "--where", "dimension==20") == 0
    numbers = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert numbers["first"] == "link=identity" and numbers["compared"] == ["link"] and numbers["picture"] is None
    [panel] = numbers["panels"]
    assert panel["where"] == {"dimension": 20, "batch_size": 200, "input": "gaussian", "teacher_norm": 1.0}
    assert panel["difference"] == [[-0.25, -1, 0]] * 3 and panel["n"] == [[4] * 3] * 3 and panel["steps_median"][0] == [202, None, None]
    assert numbers["summary"]["table"][0] == [9, 0, 15, 0] and numbers["summary"]["outcomes"]["converged"]["clusters"] == 4
    lines = table.read_text().splitlines()
    assert len(lines) == 10 and lines[0].startswith("dimension,batch_size,input,teacher_norm,step_size,init_scale,n,both,")
    row = dict(zip(lines[0].split(","), lines[1].split(",")))
    assert row["step_size"] == "0.001" and row["difference"] == "-0.25" and row["input"] == "gaussian" and row["error_low"] == ""
    assert float(row["low"]) == newcombe_paired_interval(3, 1, 0, 0)[0]


def test_summary_in_words(sweep_file, capsys, tmp_path):
    a, b = sweep_file(GRID, by_link, name="a.nc"), sweep_file(GRID, by_link, name="b.nc")
    out = tmp_path / "out.png"
    assert run("compare", a, b, "-o", out) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.endswith(f"\n{out}\n") and out.stat().st_size > 5000
    assert "pairs: 144 in 36 settings, 4 each; 0 without two outcomes do not count" in captured.out
    assert "where both converged (66 pairs): steps +0 [+0, +0], ratio 1 [1, 1]" in captured.out
    assert run("compare", a, "--between", "link=identity,none", "-o", tmp_path / "out.svg") == 0
    words = capsys.readouterr().out
    assert "p = 0.0078" in words and "difference -0.4167" in words and "4 pairs cannot give a p below 0.12" in words


@pytest.mark.parametrize("arguments, message", [
    ([], "two files, or one file and --between"), (["b.nc", "--between", "link=identity,none"], "two files, or one file"),
    (["--between", "colour=1,2"], "'colour' is not an axis"), (["--between", "link"], "is not AXIS=FIRST,SECOND"),
    (["--between", "link=identity"], "two values are compared"), (["--between", "step_size=1,x"], "are not two numbers"),
    (["--between", "init_scale=0,7"], "it has 0, 1, 2"), (["--between", "init_scale=1,1"], "both values are 1"),
    (["--between", "replicate=0,1"], "replicates are what is averaged over"), (["--between", "link=identity,none", "--x", "link"], "link is what is compared"),
    (["--between", "link=identity,none", "--y", "replicate"], "no axis of the maps"), (["missing.nc"], "No such file"),
    (["--between", "link=identity,none", "--table", "a.txt"], "the ending is not .csv"), (["--between", "link=identity,none", "-o", "a.gif"], ".png, .pdf, .svg"),
])
def test_bad_arguments(sweep_file, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    path = sweep_file(GRID, by_link)
    assert run("compare", path, *arguments) == (74 if "missing.nc" in arguments else 2)
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == "" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("width", [None, 3.25])
@pytest.mark.parametrize("dimensions", [[10], [10, 20]])
def test_the_figure_is_tidy(sweep_file, width, dimensions):
    pairs = between(open_sweep(sweep_file({**GRID, "dimension": dimensions}, by_link)), "link", ["identity", "none"])
    settings, summary = compare.compare(pairs)
    figure = compare.draw(pairs, settings, summary, "step_size", "init_scale", title="a title", width=width)
    assert_tidy(figure)
    words = [text.get_text() for text in figure.texts]
    assert "rows: identity link; columns: no link" in words and str(summary["table"][0][2]) in words
    panels = [ax for ax in figure.axes if ax.get_label().startswith("panel")]
    assert len(panels) == len(dimensions)
    for ax in panels:
        solid, dashed = sorted(ax.lines, key=lambda line: line.is_dashed())
        # Interpolated over log(step): identity from 1 to 0 between 0.01 and 0.1, none from 0.75 to 0 between 0.001
        # and 0.01.
        np.testing.assert_allclose(np.log10(solid.get_xdata()), -1.5)
        np.testing.assert_allclose(np.log10(dashed.get_xdata()), -3 + 1 / 3)


def test_colours_of_the_difference():
    neutral = cielab(np.asarray(compare.DIFFERENCE.colors))[128]
    assert compare.DIFFERENCE.N == 257 and np.linalg.norm(neutral - [97, 0, 0]) < 1
    for matrix in DEFICIENCIES.values():
        lab = cielab(np.asarray(compare.DIFFERENCE.colors), matrix)
        arms = lab[:128][::-1], lab[129:]
        for arm in arms:
            assert (np.diff(arm[:, 0]) < 0.05).all() and 40 < np.linalg.norm(arm[-1] - lab[128])
        # Half a difference on either side is told apart at a glance.
        assert np.linalg.norm(arms[0][64:] - arms[1][64:], axis=1).min() > 20
