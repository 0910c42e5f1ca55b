"""What the page shows of an audit, and what is measured beside it."""

import numpy as np
import pytest
import torch

from clarep.audit.audit import Audit
from clarep.audit.audit_config import AuditConfig
from clarep.audit.audit_run import audit_steps
from clarep.audit.extraneous_part import Readable
from clarep.audit.projected_evidence import ProjectedEvidence
from clarep.data.cues import GroupedImages
from clarep.data.load import load_data
from clarep.engine.artefacts import read_json, write_json
from clarep.report.audit_scores import (
    detection_rows,
    detection_table,
    read_scores,
    readable_rows,
    store_scores,
)
from clarep.report.html import build_report
from clarep.report.html.sections.audit_section import outlined
from clarep.report.projected_scores import (
    are_of,
    no_longer_against,
    projected_rows,
    projected_table,
)
from clarep.teachers.zoo import load_teacher


@pytest.fixture(scope="module")
def found(tiny_teacher_path, garments_path, tmp_path_factory) -> Audit:
    out = tmp_path_factory.mktemp("study") / "store" / "audit-0"
    config = AuditConfig(draws=1, rivals=2, mask_draws=0, target_share=0.0)
    for _ in audit_steps(
        load_teacher(tiny_teacher_path), load_data(str(garments_path)), out, config
    ):
        pass
    return Audit.load(out)


def with_cues(garments_path, foreign) -> GroupedImages:
    data = load_data(str(garments_path))
    cue = np.where(foreign, (data.labels + 1) % 10, data.labels)
    parts = data.name, data.labels, data.class_names, data.sources, data.read
    return GroupedImages(*parts, cue=cue)


def test_scores_are_held_against_the_cues_that_data_know(found, garments_path):
    foreign = np.zeros(40, bool)
    foreign[found.doubts.topk(4).indices.numpy()] = True
    data = with_cues(garments_path, foreign)
    probabilities = torch.eye(10)[torch.from_numpy(data.cue)]  # of one that sees cues alone
    rows = detection_rows(found, data, probabilities)
    assert [row["auc"] for row in rows] == [1.0, 1.0, 1.0] and rows[0]["found"] == 4
    assert rows[0]["precision"] == rows[0]["recall"] == 1.0
    assert "confident learning" in detection_table(rows)
    assert len(detection_rows(found, data, None)) == 1
    assert detection_rows(found, with_cues(garments_path, np.zeros(40, bool)), None) == []
    assert detection_rows(found, load_data(str(garments_path)), None) == []


def test_the_page_shows_it(found, runs, garments_path, tmp_path):
    foreign = np.arange(40) % 7 == 0
    names = found.class_names
    read = Readable("left", 40, 0.5, (0.3, 0.7), dict.fromkeys(range(10), 0.5), 0.1)
    store_scores(
        found,
        {
            "detection": detection_rows(found, with_cues(garments_path, foreign), None),
            "readable": readable_rows([read], names),
        },
    )
    assert set(read_scores(found)) == {"detection", "readable"}
    text = build_report(runs[:1], None, tmp_path, audit=found.folder).read_text()
    section = text.split('id="audit"')[1].split("<section")[0]
    assert section.count("<img") == 40  # four of each class: all are typical, none is left
    assert all(f"{name}, typical" in section for name in names)
    assert "sigma 0.25" in section and "Finding foreign cues" in section
    assert (tmp_path / "data/audit.csv").read_text().count("\n") == 11
    assert (tmp_path / "data/audit-scores.json").exists()
    cost = text.split('id="cost"')[1].split("<section")[0]
    assert "Ledger of the audit" in cost and "120" in cost
    assert 'id="audit"' not in build_report(runs[:1], None, tmp_path / "without").read_text()


def test_the_page_shows_evidence_before_and_after(found, runs, tmp_path):
    n = 8
    said = ProjectedEvidence(
        index=found.index[:n],
        labels=found.labels[:n],
        before=torch.linspace(-1, 1, n).double(),
        after=torch.ones(n).double(),
        right_before=torch.arange(n) > 3,
        right_after=torch.arange(n) > 0,
        labels_tried=10,
    )
    rows = projected_rows(said, found, sigma_te=5.16, canonical_sha256="abc")
    whole = next(row for row in rows["projected"] if row["group"] == "all")
    assert [whole[f"against_{when}"] for when in ("before", "after", "no_longer")] == [4, 1, 3]
    assert whole["change"] == pytest.approx(1)
    assert [are_of(rows["projected"], sha) for sha in ("abc", "other")] == [True, False]
    assert not are_of([], "abc")
    told = no_longer_against(rows["projected_images"], [f"{i}.png" for i in range(40)], 2)
    assert [one["source"] for one in told] == [f"{found.index[i]}.png" for i in (1, 2)]
    assert "3" in projected_table(rows["projected"])
    store_scores(found, rows)
    text = build_report(runs[:1], None, tmp_path, audit=found.folder).read_text()
    section = text.split('id="audit"')[1].split("<section")[0]
    assert "before and after the projection" in section and "5.16" in section
    assert (tmp_path / "data/audit-projected.csv").read_text().count("\n") == n + 1


def test_a_study_s_own_is_found(found, fabricated):
    """By the audit that a run says it has read; one that lies nowhere is told."""
    place = found.folder.parent.parent / "runs" / "vanilla-0"
    run = fabricated.make_run(place, "vanilla", 0)
    path = run / "student" / "config.json"
    config = read_json(path)
    said = {}
    for sha256 in (found.sha256, "0" * 64):
        write_json(path, config | {"audit_sha256": sha256}, sealed=True)
        said[sha256] = build_report([run], None, place.parent.parent / "page").read_text()
    assert "sigma 0.25" in said[found.sha256]
    assert "--audit DIR" in said["0" * 64] and "sigma 0.25" not in said["0" * 64]


def test_a_mask_is_outlined_and_else_nothing_changes():
    image = np.full((32, 32, 3), 7, np.uint8)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8:16, 8:16] = True
    drawn = outlined(image, mask)
    assert drawn.shape == (96, 96, 3)
    line = (drawn != 7).any(2)
    assert line[24:48, 24:48].sum() == line.sum() == 4 * 24 - 4
    assert not line[25:47, 25:47].any()
