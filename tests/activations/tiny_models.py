"""Untrained models of many architectures, 2 layers x 32, as save_pretrained writes them, each with a tokenizer."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.conftest import sentence

VOCABULARY, LAYERS, D = 300, 2, 32
END = "<|endoftext|>"

GROUPED = {"num_key_value_heads": 2}
HEADS = {**GROUPED, "head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
OLD_NAMES = {"n_embd": D, "n_layer": LAYERS, "n_head": 4, "n_positions": 64}
SCALED = {**GROUPED, "residual_multiplier": 0.5, "embedding_multiplier": 2.0, "logits_scaling": 3.0}
STABLELM = {"partial_rotary_factor": 0.5, "num_attention_heads": 2, **GROUPED, "head_dim": 16}

# name -> model type, and what its class needs besides COMMON
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", OLD_NAMES),
    "gpt_neo": ("gpt_neo", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox-sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "gptj": ("gptj", {**OLD_NAMES, "rotary_dim": 4}),
    "gpt_bigcode": ("gpt_bigcode", OLD_NAMES),
    "gpt_oss": ("gpt_oss", {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "codegen": ("codegen", {**OLD_NAMES, "rotary_dim": 4}),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": D}),
    "opt-projections": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 16}),
    "opt-350m": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "opt-post-norm": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": D, "do_layer_norm_before": False}),
    "xglm": ("xglm", {"ffn_dim": 64, "d_model": D, "num_layers": 2, "attention_heads": 4}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
    "mpt": ("mpt", {"d_model": D, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),
    "llama": ("llama", GROUPED),
    "mistral": ("mistral", GROUPED),
    "mixtral": ("mixtral", {**GROUPED, "num_local_experts": 4}),
    "qwen2": ("qwen2", GROUPED),
    "qwen2_moe": ("qwen2_moe", {**GROUPED, "num_experts": 4, **EXPERTS, "shared_expert_intermediate_size": 16}),
    "qwen3": ("qwen3", HEADS),
    "qwen3_moe": ("qwen3_moe", {**HEADS, "num_experts": 4, **EXPERTS}),
    "gemma": ("gemma", HEADS),
    "gemma2": ("gemma2", HEADS),
    "gemma3": ("gemma3_text", HEADS),
    "olmo": ("olmo", {}),
    "olmo2": ("olmo2", GROUPED),
    "phi": ("phi", {}),
    "phi3": ("phi3", {**GROUPED, "pad_token_id": 0}),
    "falcon": ("falcon", {"new_decoder_architecture": False}),
    "falcon-sequential": ("falcon", {"new_decoder_architecture": False, "parallel_attn": False, "alibi": True}),
    "stablelm": ("stablelm", STABLELM),
    "stablelm-parallel": ("stablelm", {**STABLELM, "use_parallel_residual": True}),
    "granite": ("granite", SCALED),
    "cohere": ("cohere", GROUPED),
    "cohere2": ("cohere2", HEADS),
    "starcoder2": ("starcoder2", GROUPED),
    "smollm3": ("smollm3", {**GROUPED, "pad_token_id": 0}),
    "glm4": ("glm4", {**HEADS, "pad_token_id": 0}),
    "nemotron": ("nemotron", HEADS),
    "mamba": ("mamba", {"state_size": 4}),
    "mamba2": ("mamba2", {"state_size": 4, "num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1}),
    "openai-gpt": ("openai-gpt", OLD_NAMES),
}
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": D,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}


def write_tokenizer(folder: Path, special: str | None = END) -> None:
    """Write a byte-level tokenizer of 300 tokens, with one token for BOS and EOS, or without any."""
    bpe = ByteLevelBPETokenizer()
    texts = (sentence(number) for number in range(10))
    bpe.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=[special] if special else [])
    tokens = {"bos_token": special, "eos_token": special} if special else {}
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **tokens).save_pretrained(folder)


def write_model(
    folder: Path, name: str = "llama", special: str | None = END, library: Any = None, **shape: Any
) -> Path:
    """Write an untrained model of SHAPES, changed by `shape`, and a tokenizer. Return the folder.

    library: class of transformers to make the model with; None for its class with a language-model head
    """
    model_type, needed = SHAPES[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**COMMON, **needed, **shape})
    model = AutoModelForCausalLM.from_config(config) if library is None else library(config)
    with torch.no_grad():
        for parameter in model.parameters():  # norms are 1 and biases 0 before training, which hides mistakes
            parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    write_tokenizer(folder, special)
    return folder
