"""Documents of the four sets, from local files: JSON Lines of {"question", "choices", "answer"}, gzipped. For tasks of lm-eval."""
import gzip
import json
import os
from pathlib import Path

import datasets


def load(file, **_):
    folder = os.environ.get("MULTIPLE_CHOICE")
    if not folder:
        raise ValueError("multiple choice: wanted the folder of the data in MULTIPLE_CHOICE, got none. Set it.")
    with gzip.open(Path(folder) / file, "rt", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    return {"test": datasets.Dataset.from_list(documents)}


def sentences_to_blank(document):
    """Up to the blank, with each choice put in: WinoGrande scores what comes after, which is the same for all."""
    before, _ = document["question"].split("_", 1)
    return [before + choice for choice in document["choices"]]


def after_blank(document):
    return document["question"].split("_", 1)[1].strip()
