"""Codes of missing values, columns that are not read, and names."""

import numpy as np
import pandas as pd
import pytest

import hierax as hx


def codes(caught):
    return set(caught[0].message.problems["code"])


@pytest.mark.parametrize("code", [-99, -999, -9])
def test_codes_of_missing_values_are_pointed_out_and_read_on_request(infusion_times, code):
    data = infusion_times(DV=[np.nan, 1, code, 3], WT=[70.0, code, 70, 70])
    with pytest.warns(hx.DataWarning, match=rf"{code} is far from all other values of DV.*na={{'DV': {code}}}") as seen:
        hx.read_nonmem(data, covariates=["WT"], interpolation="locf")
    assert codes(seen) == {"missing_code"}
    assert set(seen[0].message.problems["column"]) == {"DV", "WT"}
    pop = hx.read_nonmem(data.assign(MDV=[1, 0, 1, 0]), covariates=["WT"], na=code, missing="carry")
    assert pop.covariates["WT"].tolist() == [[70.0]]
    with pytest.raises(hx.DataError, match="an observation without a value"):
        hx.read_nonmem(data, na={"dv": [code, "NS"]})


def test_values_like_codes_that_are_in_line_with_the_others_are_values(infusion_times):
    data = pd.concat(
        [infusion_times(ID=i, AGE=age, DV=dv) for i, (age, dv) in enumerate([(60, 90.0), (99, 99.0), (75, 70.0)])]
    )
    assert hx.read_nonmem(data[data["AMT"] == 0], covariates=["AGE"]).n_observations == 9
    log = pd.concat([infusion_times(ID=i, DV=[np.nan, -9.0, -8.0, -10.0]) for i in range(2)])
    assert hx.read_nonmem(log).n_observations == 6
    with pytest.warns(hx.DataWarning, match="99 is far from all other values of RACE"):
        hx.read_nonmem(data[data["AMT"] == 0].assign(RACE=[1] * 3 + [99] * 3 + [2] * 3), categorical=["RACE"])


@pytest.mark.parametrize("code", ["-99", "99", -9])
def test_codes_among_text(infusion_times, code):
    data = pd.concat([infusion_times(ID=i, SEX=sex) for i, sex in enumerate(["F", "M", code])])
    with pytest.warns(hx.DataWarning, match=rf"column SEX, value '?{code}.*na={{'SEX': {code}}}"):
        assert len(hx.read_nonmem(data, covariates=["SEX"]).labels["SEX"]) == 3
    pop = hx.read_nonmem(data, categorical=["SEX"], na=code, missing={"SEX": "F"})
    assert pop.covariates["SEX"].ravel().tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("columns", "advice"),
    [
        ({"SS": [99, 0, 0, 0]}, r"na={'SS': 99}"),
        ({"RATE": [-99, 0, 0, 0]}, r"na={'RATE': -99}"),
        ({"EVID": [1, 0, -9, 0]}, r"na={'EVID': -9}"),
        ({"DV": [None, 1, "#N/A", 3]}, r"na={'DV': '#N/A'}"),
        ({"DV": [None, 1, "<0.5", 3]}, r"CENS=1 \(below"),
        ({"DV": [None, 1, "BLQ", 3]}, r"CENS=1 \(below"),
        ({"DV": [None, 1, "1,5", 3]}, r"decimal=','"),
    ],
)
def test_refused_cells_say_what_they_may_mean(infusion_times, columns, advice):
    with pytest.raises(hx.DataError, match=advice):
        hx.read_nonmem(infusion_times(**columns))


def test_steady_states_coded_as_missing(infusion_times):
    assert hx.read_nonmem(infusion_times(SS=99), na={"SS": 99}).events.steady.tolist() == [[0]]
    with pytest.raises(ValueError, match=r"na= names 'AGE', which is no column of the table"):
        hx.read_nonmem(infusion_times(), na={"AGE": -9})


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"ADM": [2, 0, 0, 0]}, r"column ADM: .*all doses go into compartment 1.*columns={'CMT': 'ADM'}"),
        ({"adm": [2, 0, 0, 0], "CMT": 1}, r"column adm: .*doses go by CMT alone"),
        ({"BLQ": [0, 0, 0, 1]}, r"row 5, ID 1, column BLQ, value 1.*count as quantified.*columns={'CENS': 'BLQ'}"),
        ({"Bloq": ["N", "N", "Y", "N"]}, r"row 4, ID 1, column Bloq, value 'Y'"),
        ({"LLOQ": 1.0}, r"row 3, ID 1, column LLOQ, value 1: DV is not above this limit"),
        ({"LLOQ": 0.1}, r"column LLOQ: the column is not read, and no observation is censored"),
        ({"ULOQ": 3.0}, r"row 5, ID 1, column ULOQ, value 3: DV is not below this limit"),
        ({"LLOQ": 3.0, "CENS": [0, 0, 0, 1]}, r"rows \(first: row 3.*column LLOQ"),
        ({"YTYPE": [0, 1, 2, 1]}, r"column YTYPE.*one endpoint.*columns={'DVID': 'YTYPE'}"),
        ({"PERIOD": [1, 1, 2, 2]}, r"column PERIOD.*columns={'OCC': 'PERIOD'}"),
        ({"EXCLUDE": [0, 0, 0, 1]}, r"column EXCLUDE.*count like all others"),
        ({"Infusion Duration": [5.0, 0, 0, 0]}, r"column Infusion Duration.*columns={'DUR': 'Infusion Duration'}"),
        ({"BLQ_flag": [0, 0, 0, 1]}, r"row 5, ID 1, column BLQ_flag"),
        ({"TLAG": 0.5}, r"column TLAG.*lag=pop.covariates\['TLAG'\]"),
    ],
)
def test_columns_that_mean_something_and_are_not_read_are_odd(infusion_times, columns, text):
    with pytest.warns(hx.DataWarning, match=text) as caught:
        hx.read_nonmem(infusion_times(**columns))
    assert codes(caught) == {"column_unused"}


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"ADM": [1, 0, 0, 0], "CMT": [1, 0, 0, 0]}, {}),
        ({"ADM": [1, 0, 0, 0]}, {"columns": {"CMT": "ADM"}}),
        ({"BLQ": [0, 0, 0, 1]}, {"columns": {"CENS": "BLQ"}}),
        ({"BLQ": [0, 0, 0, 1], "CENS": [0, 0, 0, 1], "LLOQ": 0.5}, {}),
        ({"BLQ": 0}, {}),
        ({"PERIOD": 1, "EXCLUDE": 0, "YTYPE": 1}, {}),
        ({"LLOQ": 0.5}, {"covariates": ["LLOQ"]}),
        ({"DOSE": 100.0, "PRED": 1.0, "NAME": "x"}, {}),
    ],
)
def test_columns_that_are_read_or_say_nothing_are_not_odd(infusion_times, columns, options):
    hx.read_nonmem(infusion_times(**columns), **options)


def test_amounts_under_another_name(infusion_times):
    with pytest.warns(hx.DataWarning, match=r"column DOSE: .*the table has no amounts.*columns={'AMT': 'DOSE'}"):
        hx.read_nonmem(infusion_times(EVID=[2, 0, 0, 0]).rename(columns={"AMT": "DOSE"}))


def test_censored_records_are_shown(infusion_times):
    assert "{dv: 3 (1 censored)}" in repr(hx.read_nonmem(infusion_times(CENS=[0, 0, 0, 1])))
    assert "{dv: 3}" in repr(hx.read_nonmem(infusion_times()))


def test_covariates_by_other_names(infusion_times):
    data = infusion_times(WT=70.0, lagt=0.5)
    pop = hx.read_nonmem(data, covariates=["WEIGHT", "LAGT"], columns={"WEIGHT": "WT"})
    assert {name: value.item() for name, value in pop.covariates.items()} == {"WEIGHT": 70.0, "LAGT": 0.5}
    both = hx.read_nonmem(data, covariates=["WEIGHT", "WT"], columns={"WEIGHT": "WT"})
    assert both.covariates["WT"].item() == both.covariates["WEIGHT"].item() == 70.0
    with pytest.raises(
        ValueError, match=r"no column \['AGE'\].*none has that name, in capital or small letters.*columns={'AGE'"
    ):
        hx.read_nonmem(data, covariates=["AGE"])
    with pytest.raises(ValueError, match=r"no column \['LAGT'\].*more than one has that name: \['lagt', 'LagT'\]"):
        hx.read_nonmem(data.assign(LagT=1.0), covariates=["LAGT"])
    roles = hx.read_nonmem(infusion_times(X=[0.0, 1, 1, 1]), columns={"DV": "X", "CENS": "X"})
    assert roles.cens["dv"].sum() == 3


@pytest.mark.parametrize("name", ["_row", "_id", "_code", "_endpoint", "_subject", "_part"])
def test_covariates_named_like_columns_of_ours(infusion_times, name):
    with pytest.raises(ValueError, match=rf"\['{name}'\] cannot be covariates.*columns={{'{name[1:]}': '{name}'}}"):
        hx.read_nonmem(infusion_times(**{name: 7.0}), covariates=[name])
    pop = hx.read_nonmem(infusion_times(**{name: 7.0}), covariates=["mine"], columns={"mine": name})
    assert pop.covariates["mine"].item() == 7.0
    with pytest.raises(hx.DataError, match="row 3, ID 1"):
        hx.read_nonmem(infusion_times(**{name: 7.0}, SS=[0, 9, 0, 0], EVID=[1, 1, 0, 0]))
    with pytest.raises(ValueError, match="cannot be covariates"):
        hx.Population.from_subjects([hx.Subject(1, times=[1.0], covariates={name: 1.0})])


def test_limits_of_censored_observations(infusion_times):
    with pytest.raises(hx.DataError, match="a censored observation without its limit. Fix: give in DV the limit"):
        hx.read_nonmem(infusion_times(DV=[np.nan, 1, 2, np.nan], CENS=[0, 0, 0, 1]))
    with pytest.warns(hx.DataWarning, match="censored below a limit of 0"):
        hx.read_nonmem(infusion_times(DV=[np.nan, 1, 2, 0], CENS=[0, 0, 0, 1]))


def test_a_regimen_is_no_other_covariate():
    with pytest.raises(ValueError, match="cannot have a covariate 'REGIMEN'"):
        hx.Population.from_grid([hx.Regimen(1.0), hx.Regimen(2.0)], [1.0], {"REGIMEN": [1, 2]})


def test_vectors_and_covariates_that_would_share_a_name(infusion_times):
    data = infusion_times(e_1=1.0, b=2.0)
    for options in ({"vectors": {"e": ["b"]}, "covariates": ["e_1"]}, {"vectors": {"b": ["e_1"]}, "covariates": ["b"]}):
        with pytest.raises(ValueError, match="the name of another column"):
            hx.read_nonmem(data, **options)


def test_complex_numbers_are_no_values(infusion_times):
    with pytest.raises(hx.DataError, match=r"1 problem in the data:\n.*value \(2\+1j\): DV must be a finite number"):
        hx.read_nonmem(infusion_times(DV=[np.nan, 1, 2 + 1j, 3]))
    with pytest.raises(hx.DataError, match=r"value \(2\+1j\)"):
        hx.read_nonmem(infusion_times(X=2 + 1j), covariates=["X"])
    real = hx.read_nonmem(infusion_times(DV=np.array([np.nan, 1, 2, 3], complex)))
    assert real.dv["dv"].tolist() == [[0.0, 1.0, 2.0, 3.0]]


def test_labels_that_look_like_numbers_are_said():
    """Decimal commas, units and dates made categories 0 and 1 of weights."""
    for labels in (["70,5", "81,2"], ["70 kg", "81 kg"], ["2020-01-01", "2020-02-01"]):
        frame = pd.DataFrame({"ID": [1, 2], "TIME": 0.0, "DV": 1.0, "WT": labels})
        with pytest.warns(hx.DataWarning, match=r"column WT.*look like numbers or dates, and are read as categories"):
            hx.read_nonmem(frame, covariates=["WT"])
    # Warnings are errors in these tests.
    hx.read_nonmem(frame.assign(WT=["F", "3A"]), covariates=["WT"])


def test_codes_of_missing_doses_are_said():
    frame = pd.DataFrame({"ID": 1, "TIME": [0.0, 1.0], "DV": [np.nan, 5.0], "AMT": [100, 0]})
    frame = frame.assign(RATE=[9999, 0], II=[999, 0], ADDL=[999, 0])
    with pytest.warns(hx.DataWarning) as told:
        hx.read_nonmem(frame)
    assert all(f"column {name}, value 9" in str(told[0].message) for name in ("RATE", "II", "ADDL"))


def test_days_beside_the_times_of_one_day_are_said():
    frame = pd.DataFrame({"ID": 1, "TIME": ["8:00", "9:00", "10:00"], "DV": 1.0})
    with pytest.warns(hx.DataWarning, match=r"column DAY: .*no TIME is above 24"):
        hx.read_nonmem(frame.assign(DAY=[1, 2, 3]))
    dates = frame.assign(DATE1=["2020-01-01", "2020-01-03", "2020-01-04"])
    with pytest.warns(
        hx.DataWarning, match=r"column DATE1: .*are read as if they were of one day.*columns=\{'DATE': 'DATE1'\}"
    ):
        hx.read_nonmem(dates)
    times = np.asarray(hx.read_nonmem(dates, columns={"DATE": "DATE1"}).times)
    np.testing.assert_allclose(times, [[0.0, 49.0, 74.0]])


def test_two_endpoints_of_one_code_are_refused():
    frame = pd.DataFrame({"ID": 1, "TIME": 0.0, "DV": 1.0, "DVID": [1, 2]})
    with pytest.raises(ValueError, match=r"endpoints= gives \['pd', 'eff'\] the same DVID"):
        hx.read_nonmem(frame, endpoints={"pk": 1, "pd": 2, "eff": 2})
