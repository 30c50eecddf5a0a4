import numpy as np
import pandas as pd
import pytest

import hierax as hx


def frame(**columns):
    base = {"ID": [1, 1, 1], "TIME": [0.0, 1.0, 2.0], "DV": [np.nan, 5.0, 3.0], "AMT": [100.0, 0.0, 0.0]}
    return pd.DataFrame(base | columns)


def test_evid_and_mdv_are_inferred_from_the_dose_items():
    pop = hx.read_nonmem(frame())
    assert pop.mask["dv"].tolist() == [[False, True, True]]
    assert pop.records["evid"].tolist() == [[1, 0, 0]]
    assert pop.events.amount.tolist() == [[100.0]]


def test_names_match_in_any_case_and_by_a_map():
    renamed = frame().rename(columns={"ID": "id", "TIME": "Time", "DV": "conc"})
    pop = hx.read_nonmem(renamed, columns={"DV": "conc"})
    assert pop.dv["dv"].tolist() == [[0.0, 5.0, 3.0]]


def test_a_file_with_dots_for_missing_cells(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("ID,TIME,DV,AMT\n1,0,.,100\n1,1,5,.\n2,0,.,50\n2,3,4,.\n")
    pop = hx.read_nonmem(path)
    assert len(pop) == 2
    assert pop.events.amount.ravel().tolist() == [100.0, 50.0]


def test_addl_expands_and_is_not_on_the_record_axis():
    # NONMEM's own example: TIME=10 AMT=15 ADDL=2 II=12 is doses at 10, 22 and 34.
    data = pd.DataFrame(
        {"ID": 1, "TIME": [10.0, 50.0], "DV": [np.nan, 1.0], "AMT": [15.0, 0.0], "ADDL": [2, 0], "II": [12, 0]}
    )
    pop = hx.read_nonmem(data)
    assert pop.events.time.tolist() == [[10.0, 22.0, 34.0]]
    assert pop.events.amount.tolist() == [[15.0, 15.0, 15.0]]
    assert pop.n_records == 2


def test_infusions_keep_their_rate_and_duration():
    pop = hx.read_nonmem(frame(RATE=[25.0, 0.0, 0.0]))
    assert pop.events.rate.tolist() == [[25.0]]
    assert pop.events.duration.tolist() == [[4.0]]
    assert pop.events.infusions
    assert not hx.read_nonmem(frame()).events.infusions


def test_record_order_at_equal_time_is_file_order():
    data = frame(TIME=[0.0, 0.0, 1.0], AMT=[0.0, 100.0, 0.0], DV=[0.1, np.nan, 5.0])
    pop = hx.read_nonmem(data)
    assert pop.events.record.tolist() == [[1]]
    conc = hx.pk.one_compartment(pop, CL=1.0, V=10.0)
    assert np.asarray(conc)[0, :2].tolist() == [0.0, 10.0]


def test_several_endpoints_by_dvid():
    data = frame(AMT=[100.0, 0, 0], DVID=[1, 1, 2])
    pop = hx.read_nonmem(data, endpoints={"cp": 1, "pca": 2})
    assert pop.mask["cp"].tolist() == [[False, True, False]]
    assert pop.mask["pca"].tolist() == [[False, False, True]]
    with pytest.raises(ValueError, match=r"several endpoints. Name them"):
        hx.read_nonmem(data)


def test_several_endpoints_by_cmt_where_there_is_no_dvid():
    pop = hx.read_nonmem(frame(CMT=[1, 2, 3]), endpoints={"cp": 2, "pca": 3})
    assert pop.mask["pca"].tolist() == [[False, False, True]]


def test_covariates_constant_varying_and_categorical():
    data = pd.concat([frame(WT=[70.0, 70, 70], CR=[1.0, 1, 2], SEX="F"), frame(ID=2, WT=80.0, CR=1.0, SEX="M")])
    pop = hx.read_nonmem(data, covariates=["WT", "CR", "SEX"])
    assert pop.covariates["WT"].shape == (2, 1)
    assert pop.covariates["CR"].shape == (2, 3)
    assert pop.covariates["SEX"].ravel().tolist() == [0.0, 1.0]
    assert pop.labels["SEX"] == ("F", "M")


def test_occasions_are_coded_over_the_table_and_masked_where_absent():
    data = pd.concat([frame(OCC=[1, 1, 2]), frame(ID=2, OCC=[2, 2, 2])])
    pop = hx.read_nonmem(data)
    assert pop.n_occasions == 2
    assert pop.occasion.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert pop.occasion_mask.tolist() == [[True, True], [False, True]]


def test_censored_rows():
    pop = hx.read_nonmem(frame(CENS=[0, 0, 1]))
    assert pop.censoring == (("dv", "left"),)
    assert hx.read_nonmem(frame(CENS=[0, 0, 1], LIMIT=[0, 0, 1.0])).censoring == (("dv", "interval"),)


@pytest.mark.parametrize(
    ("columns", "code", "text"),
    [
        ({"TIME": [0.0, 2.0, 1.0]}, "time_decreases", r"row 4, ID 1, column TIME, value 1: TIME is less than"),
        ({"TIME": [0.0, np.nan, 1.0]}, "missing_time", r"column TIME.*a record without a time"),
        (
            {"DV": [np.nan, np.nan, 3.0]},
            "dv_missing",
            r"row 3, ID 1, column DV.*without a value. Fix: give DV, or set MDV=1",
        ),
        ({"DV": [np.nan, "five", 3.0]}, "not_a_number", r"value 'five': DV must be a number"),
        ({"AMT": [-5.0, 0, 0]}, "amt", r"value -5: a dose needs a positive amount"),
        ({"EVID": [7, 0, 0]}, "evid_code", r"EVID must be 0, 1 or 2"),
        ({"EVID": [1, 3, 0]}, "evid_reset", r"resets \(EVID 3 and 4\) are not read yet"),
        ({"MDV": [1, 5, 0]}, "mdv_code", r"MDV must be 0 or 1"),
        ({"SS": [1, 0, 0]}, "ss", r"steady-state doses are not read yet"),
        ({"ADDL": [2, 0, 0]}, "ii", r"ADDL needs an interval. Fix: give II > 0"),
        ({"ADDL": [1.5, 0, 0], "II": [1, 0, 0]}, "addl", r"ADDL must be a whole number"),
        ({"RATE": [-2, 0, 0]}, "rate", r"modelled rates and durations"),
        ({"CMT": [1, -1, 1]}, "cmt", r"CMT must be 0 or a positive whole number"),
        ({"EVID": [1, 0, 0], "AMT": [100, 3, 0]}, "dose_items", r"a record that is no dose has a dose item"),
        ({"CENS": [0, 2, 0]}, "cens_code", r"CENS is 1 \(below DV\)"),
        ({"ID": [1, 2, 1]}, "id_returns", r"this ID comes back"),
        ({"ID": [1, np.nan, 1]}, "missing_id", r"a record without a subject"),
        ({"MDV": [1, 1, 1]}, "no_observation", r"no record of the table is an observation"),
    ],
)
def test_problems_name_row_id_column_value_and_fix(columns, code, text):
    with pytest.raises(hx.DataError, match=text) as caught:
        hx.read_nonmem(frame(**columns))
    assert code in set(caught.value.problems["code"])
    assert (caught.value.problems["fix"] != "").all()


def test_all_problems_come_together_in_the_order_of_rows():
    bad = pd.concat([frame(TIME=[0.0, 2.0, 1.0]), frame(ID=2, AMT=[-1.0, 0, 0]), frame(ID=3, DV=[np.nan, np.nan, 1])])
    with pytest.raises(hx.DataError, match="3 problems in the data") as caught:
        hx.read_nonmem(bad)
    assert caught.value.problems["row"].tolist() == [4, 5, 9]
    assert caught.value.problems["id"].tolist() == [1, 2, 3]


def test_missing_covariates_and_unknown_endpoints_are_problems():
    with pytest.raises(hx.DataError, match="the covariate is missing here"):
        hx.read_nonmem(frame(WT=[70.0, np.nan, 70]), covariates=["WT"])
    with pytest.raises(hx.DataError, match="an observation of no named endpoint"):
        hx.read_nonmem(frame(DVID=[1, 1, 3]), endpoints={"cp": 1})


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: hx.read_nonmem(frame().drop(columns="TIME")), r"no column \['TIME'\].*columns={'TIME'"),
        (lambda: hx.read_nonmem(frame(), covariates=["AGE"]), r"no column \['AGE'\]"),
        (lambda: hx.read_nonmem(frame(), columns={"DV": "conc"}), r"are not in the table, which has"),
        (lambda: hx.read_nonmem(frame(), columns={"DOSE": "AMT"}), r"which Hierax does not read"),
        (lambda: hx.read_nonmem(frame(time=1.0)), r"More than one column is read as \['TIME'\]"),
        (lambda: hx.read_nonmem(frame().iloc[:0]), r"The table has no rows"),
        (lambda: hx.datasets.load("warfarin"), r"There is no data set 'warfarin'. Load one of"),
    ],
)
def test_requests_that_the_table_cannot_meet(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_numbers_held_as_text_are_numbers():
    pop = hx.read_nonmem(frame(WT=["60.0", "60.0", "60.0"]), covariates=["WT"])
    assert pop.covariates["WT"].tolist() == [[60.0]]
    assert "WT" not in pop.labels
    with pytest.raises(hx.DataError, match="value '7O': WT is a number in other rows"):
        hx.read_nonmem(frame(WT=["60", "7O", "60"]), covariates=["WT"])
    with pytest.raises(hx.DataError, match="the covariate is missing here"):
        hx.read_nonmem(frame(SEX=["F", ".", "F"]), covariates=["SEX"])


def test_observations_in_several_compartments_need_names():
    with pytest.raises(ValueError, match=r"Observations have CMT \[2.0, 3.0\].*Name them by their CMT"):
        hx.read_nonmem(frame(CMT=[1, 2, 3]))
    with pytest.raises(ValueError, match="endpoints= needs a DVID or a CMT column"):
        hx.read_nonmem(frame(), endpoints={"cp": 1, "pca": 2})
