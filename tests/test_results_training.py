"""A training knows its folder, its names and its seeds."""

from pathlib import Path

from lth_lightning.results import TICKET, Training
from lth_lightning.seeding import derive_seed

RUN = Path("lightning_logs/lenet/version_0")
TICKET_3 = Training(0, "ticket", 0, 3, RUN)
CONTROL_3 = Training(2, "random_reinit", 1, 12, RUN)


def test_a_tickets_folder_is_that_of_the_design():
    assert TICKET == "ticket"
    assert TICKET_3.folder == RUN / "replicate_0" / "ticket" / "level_03"
    assert TICKET_3.replicate_folder == RUN / "replicate_0"
    assert TICKET_3.version == "replicate_0/ticket/level_03"
    assert TICKET_3.label == "ticket"
    assert TICKET_3.is_ticket


def test_a_controls_folder_names_its_trial():
    assert CONTROL_3.folder == RUN / "replicate_2" / "random_reinit_1" / "level_12"
    assert CONTROL_3.version == "replicate_2/random_reinit_1/level_12"
    assert not CONTROL_3.is_ticket


def test_levels_past_99_have_folders_of_their_own():
    assert Training(0, "ticket", 0, 100, RUN).folder.name == "level_100"


def test_a_control_finds_its_replicates_ticket():
    assert CONTROL_3.ticket(4) == Training(2, "ticket", 0, 4, RUN)


def test_a_line_is_what_its_levels_share():
    assert CONTROL_3.line == (2, "random_reinit", 1)
    assert Training(2, "random_reinit", 1, 0, RUN).line == CONTROL_3.line
    assert TICKET_3.line != CONTROL_3.line


def test_trainings_sort_by_replicate_arm_trial_and_level():
    trainings = [
        Training(r, a, t, n, RUN) for r in (1, 0) for a in ("ticket", "reinit") for t in (1, 0) for n in (10, 9)
    ]
    expected = [(r, a, t, n) for r in (0, 1) for a in ("reinit", "ticket") for t in (0, 1) for n in (9, 10)]
    assert [(x.replicate, x.arm, x.trial, x.level) for x in sorted(trainings)] == expected


def test_seeds_come_from_what_the_training_is_and_what_they_are_for_alone():
    assert CONTROL_3.seed(5, "init") == derive_seed(5, 2, "random_reinit", 1, 12, "init")
    elsewhere = Training(2, "random_reinit", 1, 12, Path("/elsewhere"))
    assert elsewhere.seed(5, "init") == CONTROL_3.seed(5, "init")
    others = [
        (1, "random_reinit", 1, 12),
        (2, "random_mask", 1, 12),
        (2, "random_reinit", 0, 12),
        (2, "random_reinit", 1, 11),
    ]
    changed = [
        CONTROL_3.seed(6, "init"),
        CONTROL_3.seed(5, "order"),
        CONTROL_3.seed(5, "order", 1),
        CONTROL_3.seed(5),
        *(Training(*parts, RUN).seed(5, "init") for parts in others),
    ]
    assert len({CONTROL_3.seed(5, "init"), *changed}) == 1 + len(changed)


def test_a_training_reads_as_words():
    assert str(TICKET_3) == "replicate 0 ticket level 3"
    assert str(CONTROL_3) == "replicate 2 random_reinit_1 level 12"
