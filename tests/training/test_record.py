import json

import pytest

from scorefield.errors import TrainingError
from scorefield.training.record import Record, read_rows


def row(step, **more):
    return {"step": step, "images": 10 * step, "loss": 1 / step, **more}


@pytest.fixture
def folder(tmp_path):
    record = Record(tmp_path, 0)
    for step in (3, 6, 9):
        record.add(row(step))
    return tmp_path


def lines(folder):
    return (folder / "metrics.csv").read_text().splitlines()


def test_numbers_come_back_exactly(folder):
    record = Record(folder, 9)
    assert record.rows == [row(3), row(6), row(9)]
    assert lines(folder)[0] == "step,images,loss"


def test_rows_after_the_step_are_dropped(folder):
    record = Record(folder, 6)
    record.add(row(9))
    assert record.rows == [row(3), row(6), row(9)]
    assert [line.split(",")[0] for line in lines(folder)] == ["step", "3", "6", "9"]


@pytest.mark.parametrize("unfinished", ["12,120,0.0", "12,12", "1", "\ufffd"])
def test_an_unfinished_line_is_dropped(folder, unfinished):
    with (folder / "metrics.csv").open("a") as file:
        file.write(unfinished)
    record = Record(folder, 12)
    assert record.rows == [row(3), row(6), row(9)]
    assert len(lines(folder)) == 4


@pytest.mark.parametrize("torn", ["12,12", "12,120,0.0.5", "12,120,", "12,120,0.5,4", ",120,0.5"])
def test_a_torn_line_in_between_is_passed_over(folder, torn):
    with (folder / "metrics.csv").open("a") as file:
        file.write(f"{torn}\n15,150,0.25\n")
    found = read_rows(folder / "metrics.csv")
    assert found[:3] == [row(3), row(6), row(9)]
    assert found[-1] == {"step": 15, "images": 150, "loss": 0.25}
    # An empty cell is a name without a value at that step.
    assert found[3:-1] == ([{"step": 12, "images": 120}] if torn == "12,120," else [])


@pytest.mark.parametrize("content", ["", "step,im", "step,images\n", "some,thing\n1,2\n"])
def test_a_file_without_rows(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    record = Record(tmp_path, 5)
    record.add(row(7))
    again = Record(tmp_path, 7)
    assert again.rows == [row(7)]


def test_a_new_name_is_a_new_column(folder):
    record = Record(folder, 9)
    record.add(row(12, cycles=0.5))
    record.add(row(15))
    assert lines(folder)[0] == "step,images,loss,cycles"
    assert lines(folder)[1].endswith(",")
    assert lines(folder)[4].endswith(",0.5")
    again = Record(folder, 15)
    assert again.rows[-2:] == [row(12, cycles=0.5), row(15)]


def test_the_summary_is_json(folder):
    record = Record(folder, 9)
    record.summarize(row(9))
    assert json.loads((folder / "metrics.json").read_text()) == row(9)
    assert sorted(p.name for p in folder.iterdir()) == ["metrics.csv", "metrics.json", "tb"]


def test_writes_nothing_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = Record(None, 0)
    record.add(row(1))
    record.summarize(row(1))
    assert record.rows == [row(1)]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"cannot write the metrics .*file"):
        Record(tmp_path / "file" / "run", 0)


def test_tensorboard_sees_the_curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = Record(folder, 6)
    record.add(row(9))
    events = EventAccumulator(str(folder / "tb"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [3, 6, 9]


def test_tensorboard_sees_the_pictures_and_not_those_after_the_step(tmp_path):
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (2, 4)), (2, (3,))):
        record = Record(tmp_path, start)
        for step in steps:
            record.picture(step, {"one": Figure(figsize=(1, 1)), "other": Figure(figsize=(2, 1))})
        events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [event.step for event in events.Images("one")] == [2, 3]
    sizes = [(event.width, event.height) for event in events.Images("other")]
    assert sizes == [(200, 100)] * 2
    Record(None, 0).picture(1, {"one": Figure()})


def test_lines_that_are_no_rows_are_passed_over(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_bytes(b"step,loss\n1,0.5\n\x00\xff\n2\r3,1\nnan,1\n" + b"9" * 200_000 + b",1\n4,2\n")
    assert read_rows(file) == [{"step": 1, "loss": 0.5}, {"step": 4, "loss": 2}]
    file.write_bytes(b'"\r\r,\x00\n')
    assert read_rows(file) == []
