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
    pop = hx.read_nonmem(data, covariates=["WT", "CR", "SEX"], interpolation="nocb")
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
        ({"TIME": ["0:00", "1:00", "2:75"]}, "clock", r"value '2:75': TIME must be a clock time \(hh:mm"),
        ({"DATE": ["1-1-2020", "1-2-2020", "13-3-2020"]}, "date", r"value '13-3-2020': DATE must be a date"),
        (
            {"DV": [np.nan, np.nan, 3.0]},
            "dv_missing",
            r"row 3, ID 1, column DV.*without a value. Fix: give DV, or set MDV=1",
        ),
        ({"DV": [np.nan, "five", 3.0]}, "not_a_number", r"value 'five': DV must be a finite number"),
        ({"DV": [np.nan, np.inf, 3.0]}, "not_a_number", r"DV must be a finite number"),
        ({"AMT": [-5.0, 0, 0]}, "amt_negative", r"value -5: a dose cannot be negative"),
        ({"AMT": [0.0, 0, 0], "EVID": [1, 0, 0]}, "amt", r"value 0: a dose needs a positive amount"),
        ({"AMT": [0.0, 0, 0], "RATE": [5.0, 0, 0]}, "rate_without_amt", r"value 5: the infusion has no amount"),
        ({"EVID": [8, 0, 0]}, "evid_code", r"value 8: EVID must be 0, 1, 2, 3 or 4"),
        ({"EVID": [5, 0, 0]}, "evid_rxode", r"EVID 5 \(replace\), 6 \(multiply\) and 7 \(phantom dose\)"),
        ({"MDV": [1, 5, 0]}, "mdv_code", r"value 5: MDV must be 0, 1, 100 or 101"),
        ({"MDV": [101, 0, 0]}, "mdv_dose", r"a dose or reset cannot be left out of estimation only"),
        ({"SS": [4, 0, 0], "II": [12, 0, 0]}, "ss", r"value 4: SS must be 0, 1 \(replace the state\)"),
        ({"SS": [1, 0, 0]}, "ss_without_ii", r"a steady state of repeated doses needs its interval"),
        (
            {"SS": [1, 0, 0], "AMT": [0, 0, 0], "RATE": [5, 0, 0], "ADDL": [2, 0, 0]},
            "ss_constant",
            r"a constant infusion at steady state has reached its plateau",
        ),
        ({"ADDL": [2, 0, 0]}, "ii", r"ADDL needs an interval. Fix: give II > 0"),
        ({"II": [-2, 0, 0]}, "ii_negative", r"value -2: an interval cannot be negative"),
        ({"ADDL": [1.5, 0, 0], "II": [1, 0, 0]}, "addl", r"ADDL must be a whole number from 0 to 10000"),
        (
            {"ADDL": [-3, 0, 0], "II": [1, 0, 0]},
            "addl_negative",
            r"a negative ADDL \(NONMEM's empirical steady state\)",
        ),
        ({"RATE": [-3, 0, 0]}, "rate", r"RATE must be 0 \(bolus\), positive, -1 .* or -2"),
        ({"CMT": [1, -1, 1]}, "cmt_negative", r"a negative CMT \(turning a compartment off\)"),
        ({"CMT": [1, 1.5, 1]}, "cmt", r"CMT must be 0 or a positive whole number"),
        ({"CMT": ["depot", "gut", "depot"]}, "cmt_name", r"value 'depot'.*'gut'\): no compartment has this name"),
        (
            {"EVID": [1, 0, 0], "AMT": [100, 3, 0]},
            "dose_items",
            r"column AMT, value 3: the record is not a dose, but has a",
        ),
        (
            {"EVID": [1, 2, 0], "RATE": [0, 3, 0]},
            "dose_items",
            r"column RATE, value 3: the record is not a dose, but has a",
        ),
        ({"CENS": [0, 2, 0]}, "cens_code", r"CENS is 1 \(below DV\)"),
        ({"CENS": [0, 1, 0], "LIMIT": [0, 9.0, 0]}, "limit", r"LIMIT is the other end of the interval"),
        ({"OCC": [1, np.nan, 1]}, "missing_occ", r"a record without an occasion"),
        ({"ID": [1, 2, 1]}, "id_returns", r"this ID occurs again"),
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
    with pytest.raises(hx.DataError, match="the observation belongs to none of the named endpoints"):
        hx.read_nonmem(frame(DVID=[1, 1, 3]), endpoints={"cp": 1})


@pytest.mark.parametrize(
    ("columns", "options", "code", "text"),
    [
        ({"WT": [70.0, 71, 70]}, {"covariates": ["WT"]}, "covariate_varies", r"value 71: the covariate changes within"),
        ({"WT": [70.0, np.inf, 70]}, {"covariates": ["WT"]}, "covariate_text", r"WT is a number in other rows"),
        (
            {"A": [1.0, 2, 1], "B": 3.0},
            {"vectors": {"e": ["A", "B"]}},
            "vector_varies",
            r"the vector covariate changes",
        ),
    ],
)
def test_problems_of_covariates(columns, options, code, text):
    with pytest.raises(hx.DataError, match=text) as caught:
        hx.read_nonmem(frame(**columns), **options)
    assert set(caught.value.problems["code"]) == {code}


def test_a_regimen_that_would_fill_the_memory_is_refused():
    rows = [frame(ID=i) for i in range(600)]
    rows[5] = frame(ID=5, ADDL=[10_000, 0, 0], II=[1, 0, 0])
    rows[7] = frame(ID=7, AMT=[10.0, 10, 10], ADDL=[10_000] * 3, II=1, EVID=1)
    rows += [frame(ID=i) for i in range(600, 2000)]
    with pytest.raises(hx.DataError, match=r"ID 7, column ADDL.*more than 50000000 entries"):
        hx.read_nonmem(pd.concat(rows))


@pytest.mark.parametrize(
    ("frames", "options", "code", "text"),
    [
        (
            [frame(), frame(ID=2, TIME=[0.0, 1, 1], DV=[np.nan, 5, 5])],
            {},
            "duplicate_row",
            r"ID 2.*exactly the same as",
        ),
        ([frame(DV=[3.0, 5, 3])], {}, "dv_ignored", r"value 3: the record is not an observation, so its DV is ignored"),
        ([frame(MDV=[0, 0, 0])], {}, "mdv_ignored", r"the record is not an observation, so its MDV of 0 is read as 1"),
        ([frame(II=[12, 0, 0])], {}, "ii_ignored", r"an interval \(II\) without ADDL and SS repeats no dose"),
        ([frame(), frame(ID=2, MDV=1)], {}, "no_observation_of_subject", r"ID 2.*the subject has no observation"),
        ([frame(), frame(ID=2, AMT=0.0, DV=1.5)], {}, "no_dose_of_subject", r"ID 2.*the subject has no dose"),
        (
            [frame(WT=70.0), frame(ID=2, WT=70.0)],
            {"covariates": ["WT"]},
            "covariate_constant",
            r"column WT, value 70: the covariate has the same value in all subjects",
        ),
        (
            [frame(), frame(ID=2), frame(ID=3), frame(ID=4, TIME=[0.0, 60, 120])],
            {},
            "time_unit",
            r"ID 4.*by about the ratio of two units of time",
        ),
    ],
)
def test_oddities_are_told_once_as_a_warning(frames, options, code, text):
    with pytest.warns(hx.DataWarning, match=text) as caught:
        pop = hx.read_nonmem(pd.concat(frames), **options)
    assert len(caught) == 1
    assert set(caught[0].message.problems["code"]) == {code}
    assert len(pop) == len({int(part["ID"].iloc[0]) for part in frames})


def test_many_problems_of_a_kind_are_one_line():
    bad = pd.concat([frame(ID=i, AMT=[-1.0, 0, 0]) for i in range(30)])
    with pytest.raises(hx.DataError, match="30 problems in the data") as caught:
        hx.read_nonmem(bad)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    where = (
        "30 rows of 30 subjects (first: row 2, ID 0, column AMT, value -1; then rows 5, 8, 11, 14, 17, ... (24 more))"
    )
    assert where in lines[1]
    assert len(caught.value.problems) == 30


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: hx.read_nonmem(frame().drop(columns="TIME")), r"no column \['TIME'\].*columns={'TIME'"),
        (lambda: hx.read_nonmem(frame(), covariates=["AGE"]), r"no column \['AGE'\]"),
        (lambda: hx.read_nonmem(frame(), columns={"DV": "conc"}), r"are not in the table, which has"),
        (lambda: hx.read_nonmem(frame(), columns={"DOSE": "AMT"}), r"which Hierax does not read"),
        (lambda: hx.read_nonmem(frame(time=1.0)), r"More than one column is read as \['TIME'\]"),
        (lambda: hx.read_nonmem(frame().iloc[:0]), r"The table has no rows"),
        (
            lambda: hx.read_nonmem(frame(WT=1.0), covariates=["WT"], interpolation="spline"),
            r"'spline' must be one of \['locf'",
        ),
        (
            lambda: hx.read_nonmem(frame(WT=1.0), covariates=["WT"], missing="zero"),
            r"missing='zero' for WT must be one of",
        ),
        (lambda: hx.read_nonmem(frame(WT=1.0), covariates=["WT"], missing={"AGE": 1}), r"missing= names \['AGE'\]"),
        (lambda: hx.read_nonmem(frame(), units={"TIME": "fortnight"}), r"units={'TIME': 'fortnight'} cannot be used"),
        (lambda: hx.read_nonmem(frame(), units={"II": "d"}), r"converts II into the unit of TIME, which is not given"),
        (lambda: hx.read_nonmem(frame(), compartments={"depot": 0}), r"must give whole numbers of 1 or more"),
        (lambda: hx.read_nonmem(frame(DATE=1, DAT2=1)), r"several date columns \['DATE', 'DAT2'\]"),
        (lambda: hx.read_nonmem(3), r"The source is a int, but must be a path or a data frame"),
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


def test_a_pooled_design_is_not_taken_for_another_unit():
    single = [frame(ID=i, TIME=[0.0, 0.5, 24]) for i in range(6)]
    multiple = [frame(ID=9, TIME=[0.0, 168, 336]), frame(ID=10, TIME=[0.0, 168, 504])]
    assert len(hx.read_nonmem(pd.concat(single + multiple))) == 8


def test_a_date_column_beside_elapsed_times_is_odd():
    with pytest.warns(hx.DataWarning, match="TIME is a time of the day, since there is a date column"):
        hx.read_nonmem(frame(TIME=[0.0, 24, 48], DATE=["1-1-2020", "1-2-2020", "1-3-2020"]))


def test_a_named_column_takes_the_place_of_one_that_has_the_name():
    pop = hx.read_nonmem(frame(LNDV=[np.nan, 1.0, 2.0]), columns={"DV": "LNDV"})
    assert pop.dv["dv"].tolist() == [[0.0, 1.0, 2.0]]


def test_items_of_records_are_no_covariates():
    with pytest.raises(ValueError, match=r"\['TIME'\] cannot be covariates.*Name a copy"):
        hx.read_nonmem(frame(), covariates=["TIME"])


def test_long_ids_keep_their_last_digits():
    ids = [12345678901234567] * 3 + [12345678901234568] * 3
    pop = hx.read_nonmem(pd.concat([frame(), frame()]).assign(ID=ids))
    assert pop.ids == (12345678901234567, 12345678901234568)


def test_a_cell_is_told_of_once():
    with pytest.raises(hx.DataError, match="1 problem in the data"):
        hx.read_nonmem(frame(DV=[np.nan, "5,5", 3.0]))
    with pytest.raises(hx.DataError, match="1 problem in the data"):
        hx.read_nonmem(frame(OCC=[1, "A", 1]))
    with pytest.raises(hx.DataError, match="1 problem in the data"):
        hx.read_nonmem(frame(TIME=[np.nan, "8:00", "9:00"]))
    with pytest.raises(hx.DataError, match="WT is a number in other rows"):
        hx.read_nonmem(frame(WT=np.inf), covariates=["WT"])
