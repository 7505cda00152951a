"""Train the embedded language model: a small GPT-2 on 233 State of the Union addresses.

    python embedded/train.py                 # the committed model: about an hour on two cores
    python embedded/train.py --steps 20 --out /tmp/model     # a quick test

Writes a Hugging Face folder (config.json, model.safetensors, tokenizer.json) and training.json with the seed, the
steps and the bits per byte on the held-out addresses, on which neither the tokenizer nor the model is trained.
"""

# B sequences in a batch, S token positions, V vocabulary

import argparse
import json
import lzma
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from sae_sweeps.activations.documents import read_split
from sae_sweeps.config import DatasetConfig

HERE = Path(__file__).parent
TEXT = HERE / "text" / "state_of_the_union.jsonl.gz"
HOLDOUT_EVERY = 20  # documents 0, 20, 40, ... are held out, as in conf/dataset/embedded.yaml
BOS = "<|endoftext|>"
CONTEXT = 256
VOCABULARY = 4096
LOG_EVERY = 50  # steps


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer like GPT-2's on `texts`. BOS and EOS are the same token, as in GPT-2."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=[BOS], show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=BOS, eos_token=BOS, unk_token=BOS, model_max_length=CONTEXT
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Return all texts as one row of token ids, with a BOS before each text."""
    rows = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor(np.concatenate([[tokenizer.bos_token_id, *row] for row in rows]))


def build_model(tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """Return an untrained GPT-2 of 6 layers x 192."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=CONTEXT,
            n_embd=192,
            n_layer=6,
            n_head=6,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.bos_token_id,
        )
    )


def build_optimizers(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Return Muon (arXiv:2502.16982) for the matrices of the blocks, AdamW for embeddings, norms and biases."""
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=3e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True),
    ]


@torch.no_grad()
def bits_per_byte(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    """Return the code length of `texts` under the model, in bits per UTF-8 byte.

    Each document is scored by itself, after a BOS. Windows of CONTEXT tokens overlap by half. A token is scored once,
    with at least CONTEXT / 2 tokens of context except at a document's start.
    """
    nats, stride = 0.0, CONTEXT // 2
    for text in texts:
        tokens = encode(tokenizer, [text])
        scored = 1  # tokens scored so far; BOS is not scored
        while scored < len(tokens):
            start = max(0, scored - stride)
            window = tokens[start : start + CONTEXT]
            log_probs = model(window[None]).logits[0, :-1].float().log_softmax(-1)
            token_nats = -log_probs.gather(-1, window[1:, None])[:, 0]
            nats += token_nats[scored - start - 1 :].sum().item()
            scored = start + len(window)
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


def xz_bits_per_byte(train: list[str], held_out: list[str]) -> tuple[float, float]:
    """Return the bits per byte that `xz -9e` needs for the held-out text: alone, and after all of the training text."""

    def size(texts: list[str]) -> int:
        return 8 * len(lzma.compress("\n".join(texts).encode(), preset=9 | lzma.PRESET_EXTREME))

    held_out_bytes = sum(len(text.encode()) for text in held_out)
    return size(held_out) / held_out_bytes, (size(train + held_out) - size(train)) / held_out_bytes


def train(model: GPT2LMHeadModel, tokens: torch.Tensor, steps: int, batch: int, seed: int) -> None:
    """Train on random windows of the text. The learning rates rise over 50 steps and fall over the last 70 %."""
    optimizers = build_optimizers(model)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    generator = torch.Generator().manual_seed(seed)
    began = time.time()
    for step in range(steps):
        scale = min(1.0, (step + 1) / 50, (steps - step) / (0.7 * steps))
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * scale
        starts = torch.randint(len(tokens) - CONTEXT, (batch,), generator=generator)
        windows_BS = torch.stack([tokens[start : start + CONTEXT] for start in starts.tolist()])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(windows_BS, labels=windows_BS).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        if step % LOG_EVERY == 0 or step == steps - 1:
            rate = (step + 1) * batch * CONTEXT / (time.time() - began)
            print(f"step {step:5d}  loss {loss.item():.3f} nats/token  {rate:.0f} tokens/s", flush=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16, help="windows per step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "model")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    dataset = DatasetConfig(format="json", files=str(TEXT), holdout_every=HOLDOUT_EVERY)
    held_out, train_texts = (
        list(read_split(dataset, held_out=True)),
        list(read_split(dataset, held_out=False)),
    )

    tokenizer = train_tokenizer(train_texts)
    tokens = encode(tokenizer, train_texts)
    model = build_model(tokenizer)
    began = time.time()
    train(model, tokens, args.steps, args.batch, args.seed)
    minutes = (time.time() - began) / 60

    model.eval()
    xz_alone, xz_behind_training_text = xz_bits_per_byte(train_texts, held_out)
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    report = {
        "bits_per_byte": round(bits_per_byte(model, tokenizer, held_out), 4),
        "bits_per_byte_training_text": round(bits_per_byte(model, tokenizer, train_texts[::40]), 4),
        "xz_bits_per_byte": round(xz_alone, 4),
        "xz_bits_per_byte_behind_training_text": round(xz_behind_training_text, 4),
        "seed": args.seed,
        "steps": args.steps,
        "tokens_per_step": args.batch * CONTEXT,
        "training_tokens": len(tokens),
        "training_bytes": sum(len(text.encode()) for text in train_texts),
        "held_out_bytes": sum(len(text.encode()) for text in held_out),
        "held_out_documents": len(held_out),
        "parameters": model.num_parameters(),
        "minutes": round(minutes, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    temporary = args.out / "training.json.tmp"
    temporary.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(temporary, args.out / "training.json")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
