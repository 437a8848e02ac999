"""SmolLM2-135M with its real weights, against Hugging Face transformers in the same run.

    python -m benchmarks.e2e.smollm2 [--dtype bfloat16] [--batch 1 --batch 32] [--json FILE]

Every prompt has 128 tokens and gets 128 new ones, greedy, the end-of-text token ignored.
transformers gets its best case: prompts of equal length in one static batch. Prefix caching is off
on our side, and the prompts differ from the first token on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.e2e.rounds import Generate, Tokens, agreement, dtype_of, print_rows, run_rounds
from benchmarks.e2e.smollm2_weights import smollm2_checkpoint
from benchmarks.harness import machine_facts, use_threads, warn_if_busy, write_results

PROMPT_TOKENS = 128


def random_prompts(count: int, vocab: int) -> Tokens:
    """Draw prompts of equal length; the same in every run."""
    generator = torch.Generator().manual_seed(0)
    ids: Tokens = torch.randint(100, vocab, (count, PROMPT_TOKENS), generator=generator).tolist()
    return ids


def mmcore_engine(checkpoint: Path, dtype: str, prompts: Tokens) -> Generate:
    """Serve the prompts with mmcore."""
    from mmcore import LLM, SamplingParams

    llm = LLM(
        str(checkpoint), dtype=dtype, max_model_len=1024, enable_prefix_caching=False,
        skip_tokenizer_init=True,
    )  # fmt: skip

    def generate(batch: int, new_tokens: int) -> Tokens:
        params = SamplingParams(
            temperature=0.0, max_tokens=new_tokens, ignore_eos=True, detokenize=False
        )
        requests: Any = [{"prompt_token_ids": ids} for ids in prompts[:batch]]
        outputs = llm.generate(requests, params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    return generate


def transformers_engine(checkpoint: Path, dtype: torch.dtype, prompts: Tokens) -> Generate:
    """Serve the prompts with `generate` of transformers, as one batch."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()

    @torch.inference_mode()
    def generate(batch: int, new_tokens: int) -> Tokens:
        ids = torch.tensor(prompts[:batch])
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            eos_token_id=None,
            pad_token_id=0,
        )
        tokens: Tokens = made[:, ids.shape[1] :].tolist()
        return tokens

    return generate


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], action="append")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="for both sides; default: mmcore's own choice")
    parser.add_argument("--weights", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--json", type=Path, help="store the rows here")
    options = parser.parse_args()

    facts = machine_facts(use_threads(options.threads))
    warn_if_busy(facts)
    batches = options.batch or [1, 32]
    rows = []
    for name in options.dtype or ["bfloat16", "float32"]:
        checkpoint = smollm2_checkpoint(options.weights, dtype_of(name))
        prompts = random_prompts(max(batches), 49152)
        ours = mmcore_engine(checkpoint, name, prompts)
        theirs = transformers_engine(checkpoint, dtype_of(name), prompts)
        # Rounding decides between near-equal logits of random prompts, so that long bfloat16
        # generations part; the first tokens show that it is the same model.
        same = agreement(ours(max(batches), 8), theirs(max(batches), 8))
        print(f"{name}: {same:.0%} of sequences agree with transformers over 8 tokens", flush=True)
        if name == "float32" and same < 1.0:
            raise SystemExit("float32 generations differ from transformers: not measured")
        engines = {f"mmcore {name}": ours, f"transformers {name}": theirs}
        rows += run_rounds(engines, batches, options.new_tokens, options.rounds)
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print_rows(rows)
    if options.json is not None:
        write_results(options.json, facts, rows)


if __name__ == "__main__":
    main()
