"""An export of a Cytomine project: the terms of its annotations become the classes."""

from __future__ import annotations

import re
from collections import Counter

from dpconvert import readers
from dpconvert.errors import ReadError, UserError
from dpconvert.readers.cytomine import export
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import key, quoted
from dpconvert.readers.layouts import cytomine as layout

SLIDES = (
    "Nothing names the patient, so every slide is its own group. If several slides of one patient are here, they may "
    "be divided between train and test: a table patients.csv with the columns image and patient keeps them together."
)


def draft(survey: Survey) -> Draft | None:
    """A manifest of the shape cytomine; None where no list of a project's annotations is here."""
    pattern = re.compile(layout.FILES["annotations"].pattern)
    if not any(pattern.search(name) for name in survey.names):
        return None
    source = survey.under(shape="cytomine", rule={"type": "crop"})
    try:
        listed = export.read(source)
    except ReadError:
        return None  # a list of another program's
    except UserError as error:
        return Draft("cytomine", questions=(source.reason(error),))
    questions = []
    try:
        list(readers.reader(source.manifest).images(source))
    except UserError as error:
        questions.append(source.reason(error))
    found = Counter(labelled.label for of_image in listed.by_image.values() for labelled in of_image)
    if not found:
        questions.append("No annotation has a term: name the terms in Cytomine, and export again")
    patients = bool(source.match("groups"))
    return Draft(
        "cytomine",
        classes={label: found[label] for label in listed.classes},
        of="annotations",
        group="patient" if patients else "slide",
        why=(f"{source.match('groups')[0].name} tells the patients.",) if patients else (SLIDES,),
        layout=(
            "[layout.labels]  # term, by name or id -> class; terms that are not named are left out",
            *(f"{key(label)} = {quoted(label)}" for label in listed.classes),
        )
        if found
        else (),
        rule=('type = "crop"           # each annotation is one sample, and its term the class',),
        questions=tuple(questions),
    )
