"""Beam searches of transformers in float32 on the prompts of an oracle's reference.

    beam_reference.py ORACLE_DIR CHECKPOINT REFERENCE.json --out FILE

Ends of text are rare in what a tiny random model writes, so tokens that it does write stand for
them: "eos" in the file. Each search is run with early_stopping "never" and False.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from PIL import Image

CASES = 3
MAX_TOKENS = 9
WIDTHS = (2, 4)
PENALTIES = (-1.0, 0.0, 1.0, 2.0)


def search(
    oracle: Any, inputs: dict[str, Any], width: int, penalty: float, eos: list[int], early: Any
) -> dict[str, Any]:
    """One search: generated tokens with the end-of-text token, and scores, best first."""
    out = oracle.model.generate(
        **inputs,
        max_new_tokens=MAX_TOKENS,
        do_sample=False,
        num_beams=width,
        num_return_sequences=width,
        length_penalty=penalty,
        early_stopping=early,
        eos_token_id=eos or None,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    sequences = []
    for row in out.sequences[:, inputs["input_ids"].shape[1] :].tolist():
        ends = [place for place, token in enumerate(row) if token in eos]
        sequences.append(row[: ends[0] + 1] if ends else row)
    return {"sequences": sequences, "scores": out.sequences_scores.tolist()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("oracle", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    sys.path.insert(0, str(args.oracle))
    import hf_reference

    torch.set_num_threads(1)
    oracle = hf_reference.Oracle(args.checkpoint, image_backend="pil")
    cases = json.loads(args.reference.read_text())["cases"]
    with_media = [case for case in cases if case["images"]]
    chosen = [*with_media[: CASES - 1], *(c for c in cases if not c["images"])][:CASES]
    inputs = {}
    for case in chosen:
        folder = args.reference.parent
        images = [Image.open(folder / i["file"]).convert("RGB") for i in case["images"]]
        inputs[case["id"]] = oracle.encode(case["prompt"], images)
    written: Counter[int] = Counter()
    for made in inputs.values():
        for tokens in search(oracle, made, 4, 1.0, [], "never")["sequences"]:
            written.update(set(tokens[2:]))
    eos = sorted(token for token, _ in written.most_common(2))
    searches = [
        {
            "case": name,
            "width": width,
            "penalty": penalty,
            "ignore_eos": ignore,
            "early_stopping": early,
            **search(oracle, made, width, penalty, [] if ignore else eos, early),
        }
        for name, made in inputs.items()
        for width in WIDTHS
        for penalty in PENALTIES
        for ignore, early in ((False, "never"), (False, False), (True, "never"))
        if not ignore or penalty == 1.0
    ]
    args.out.write_text(json.dumps({"eos": eos, "searches": searches}))


if __name__ == "__main__":
    main()
