import re

import numpy as np
import pytest
from matplotlib.figure import Figure

import hierax as hx


@pytest.fixture(scope="module")
def check(theo_fit):
    return hx.vpc(theo_fit, n=300, seed=1)


def test_vpc_of_the_right_model_covers_the_data(check):
    assert set(check.table["quantile"]) == {0.1, 0.5, 0.9}
    assert check.table.groupby("quantile")["count"].sum().tolist() == [132, 132, 132]
    inside = (check.table["observed"] >= check.table["lower"]) & (check.table["observed"] <= check.table["upper"])
    # 33 intervals at 90 %: fewer than 24 hits would be a 1 in 1000 event for the model that made the data.
    assert inside.sum() >= 24
    assert 0.7 <= check.inside <= 0.9


def test_vpc_of_a_wrong_model_does_not(theo_fit, theo_pop, check):
    wrong = hx.evaluate(theo_fit.program.model, theo_pop, {**theo_fit.params, "v": 60.0}, hx.NaivePooled())
    found = hx.vpc(wrong, n=100)
    inside = (found.table["observed"] >= found.table["lower"]) & (found.table["observed"] <= found.table["upper"])
    assert inside.mean() < 0.5


def test_vpc_bins_and_endpoints(theo_fit):
    assert hx.vpc(theo_fit, n=20, bins=[1.0, 8.0]).table["time"].nunique() == 3
    with pytest.raises(ValueError, match=r"the observed endpoints are \['dv'\]"):
        hx.vpc(theo_fit, endpoint="pca")


def test_plots_have_the_data_in_them(theo_fit, check):
    for figure in (
        hx.plot.convergence(theo_fit),
        hx.plot.observed_predicted(theo_fit),
        hx.plot.residuals(theo_fit),
        hx.plot.vpc(check),
    ):
        assert isinstance(figure, Figure)
    fits = hx.plot.individual_fits(theo_fit)
    panels = [axis for axis in fits.axes if axis.get_visible()]
    assert len(panels) == 12
    assert panels[0].get_title() == "1"
    offsets = panels[0].collections[0].get_offsets()
    assert len(offsets) == 11
    curve = panels[0].lines[1].get_ydata()
    assert np.interp(9.05, panels[0].lines[1].get_xdata(), curve) == pytest.approx(
        theo_fit.table().query("ID == 1 and TIME == 9.05")["IPRED"].iloc[0], rel=1e-2
    )


def test_quantiles_of_residuals_that_are_normal_lie_in_their_band(theo_fit):
    axis = hx.plot.residual_quantiles(theo_fit).axes[0]
    shown = axis.collections[1].get_offsets()
    np.testing.assert_allclose(np.sort(theo_fit.table()["IWRES"].dropna()), shown[:, 1])
    assert shown[:, 0].mean() == pytest.approx(0, abs=1e-12)
    # The band of the middle of 132 residuals: 1.96 standard errors of a median, √(π/2)/√132, on both sides.
    band = axis.collections[0].get_paths()[0].vertices
    middle = band[np.abs(band[:, 0]) < 0.02][:, 1]
    assert np.ptp(middle) == pytest.approx(2 * 1.96 * np.sqrt(np.pi / 2 / 132), rel=0.05)


def test_report_is_one_self_contained_file(theo_fit, tmp_path):
    path = hx.report(theo_fit, tmp_path / "report.html", title="Theophylline & FOCE")
    text = path.read_text()
    assert "Theophylline &amp; FOCE" in text
    assert "116.80341" in text
    for heading in (
        "Parameters",
        "Convergence",
        "Observed against predicted",
        "Individual fits",
        "Visual predictive check",
    ):
        assert f"<h2>{heading}" in text
    assert text.count("data:image/png;base64,") == 5
    assert not re.search(r'(src|href)="?https?:', text)
