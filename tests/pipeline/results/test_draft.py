"""The draft says what was graded and measured, and calls nothing normal that was not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from classifier.grade import Grade
from classifier.measure.quantities import Measured, Quantity
from data_prep.levels import SpineFrame, SpineLevel, SpineLevels
from data_prep.vocabulary import LEVELS, TARGETS, Condition, Level, Side, Target
from pipeline.prediction import StudyPrediction
from pipeline.results.draft import HEADING, draft_text, usual_words


def prediction() -> StudyPrediction:
    frame = SpineFrame(*np.eye(3))
    levels = {level: SpineLevel(np.zeros(3), np.ones(3), frame, 0.9, 2.0) for level in LEVELS[1:]}
    grades = {target: Grade(np.array([0.9, 0.06, 0.04]), "seen") for target in TARGETS}
    for target in TARGETS:
        if target.level is Level.L1_L2:
            grades[target] = Grade(np.array([0.9, 0.06, 0.04]), "prior", ("level_absent",))
    grades[Target(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)] = Grade(np.array([0.1, 0.2, 0.7]), "seen")
    right = Target(Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, Level.L5_S1)
    grades[right] = Grade(np.array([0.1, 0.7, 0.2]), "seen")
    left = Target(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L3_L4)
    grades[left] = Grade(np.array([0.9, 0.06, 0.04]), "prior", ("no_slice",))
    return StudyPrediction("1", grades, SpineLevels("1", levels, (), 0.93), ("level_absent",))


def test_level_by_level_with_what_was_not_assessed() -> None:
    text = draft_text(prediction())
    lines = text.splitlines()
    assert lines[0] == HEADING and "not a medical device" in lines[-1]
    by_level = {line.split(":")[0]: line for line in lines if line[:2] in ("L1", "L2", "L3", "L4", "L5")}
    assert by_level["L1/L2"] == "L1/L2: not in the images."
    assert "Severe central canal stenosis." in by_level["L4/L5"]
    assert "No more than mild lateral recess stenosis on both sides." in by_level["L4/L5"]
    assert "Moderate neural foraminal narrowing on the right." in by_level["L5/S1"]
    assert "No more than mild neural foraminal narrowing on the left." in by_level["L5/S1"]
    assert "Left lateral recess stenosis not assessed." in by_level["L3/L4"]
    assert "Severe: L4/L5 central canal." in lines
    assert "Moderate: L5/S1 right neural foramen." in lines
    assert "6 of 25 places not assessed." in lines
    assert "A lumbar level is not in the images." in lines


def test_no_figure_stands_beside_a_flag_that_leaves_the_numbering_in_doubt() -> None:
    assert "numbering 93% sure" in draft_text(prediction())
    doubted = draft_text(replace(prediction(), flags=("sacrum_unseen",)))
    assert "numbering in doubt" in doubted and "93%" not in doubted


def test_measurements_stand_beside_grades_and_contradictions_come_first() -> None:
    measurements = (
        Measured(Quantity.CANAL_DEPTH, 15.2, 0.9, Level.L4_L5),
        Measured(Quantity.DISC_HEIGHT, 5.0, 0.8, Level.L4_L5),
        Measured(Quantity.SLIP, 4.5, 1.0, Level.L4_L5),
        Measured(Quantity.DISC_HEIGHT, 8.5, 0.8, Level.L5_S1),
        Measured(Quantity.LORDOSIS, 48.0, 3.0),
        Measured(Quantity.FORAMEN_HEIGHT, 11.0, 1.5, Level.L5_S1, Side.RIGHT),
        Measured(Quantity.FORAMEN_HEIGHT, 14.0, 1.5, Level.L2_L3, Side.LEFT),
        Measured(Quantity.FORAMEN_HEIGHT, 13.0, 1.5, Level.L2_L3, Side.RIGHT),
    )
    text = draft_text(replace(prediction(), measurements=measurements))
    assert "Severe central canal stenosis (sac depth 15.2 ± 0.9 mm)." in text
    assert "Moderate neural foraminal narrowing on the right (height 11.0 ± 1.5 mm)." in text
    assert "on the left." in text.split("L5/S1:")[1]
    assert (
        "foraminal narrowing on both sides (right height 13.0 ± 1.5 mm, left height 14.0 ± 1.5 mm)." in text
    )
    assert "Disc height 5.0 ± 0.8 mm, low for its level." in text
    assert "The vertebra above stands 4.5 ± 1.0 mm forwards." in text
    assert "L5/S1: Disc height 8.5 ± 0.8 mm. Slip not measured." in text
    assert "Lordosis 48 ± 3°" in text
    assert "L4/L5 central canal: graded Severe, but dural sac, front to back is 15.2 ± 0.9 mm." in text
    assert usual_words(Measured(Quantity.SLIP, -1.2, 1.5, Level.L4_L5)) == "−3.0 to 3.0 mm"
    assert usual_words(measurements[0]) == "10.0 mm and more" and usual_words(measurements[4]) == "26 to 74°"


def test_nothing_graded_gives_no_impression_of_health() -> None:
    ungraded = replace(
        prediction(), grades={target: Grade(np.array([0.9, 0.06, 0.04]), "prior") for target in TARGETS}
    )
    text = draft_text(ungraded)
    assert "No stenosis" not in text and "25 of 25 places not assessed." in text
