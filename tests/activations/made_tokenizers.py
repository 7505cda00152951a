"""Small tokenizers of the kinds that language models have, trained on a few sentences."""

from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    f"Document {n}. The number {n * 37 % 97} comes before the café, and it isn't “{n}”: naïve 漢字 — x{n}_y.\n"
    f"  Then\t{n}!\n"
    for n in range(60)
]
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_LLAMA_3 = [
    pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
]
BYTE_LEVEL = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama3": pre_tokenizers.Sequence(SPLIT_LLAMA_3),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}
SPECIAL = ["<unk>", "<s>", "</s>"]


def _byte_level(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = BYTE_LEVEL[kind]
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return tokenizer


def _sentence_piece(kind: str) -> Tokenizer:
    """Return a tokenizer that writes blanks as U+2581, as the conversions of Llama 2, Gemma and T5 do."""
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    if kind.startswith("unigram"):
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>")
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*SPECIAL, *bytes_], limit_alphabet=90)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if kind == "first" else "always")
    scheme = "first" if kind == "first" else "always"
    steps = [decoders.Metaspace(prepend_scheme=scheme), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if kind in ("llama2", "gemma"):  # the whole text is one word
        steps = [normalizers.Prepend("▁")] * (kind == "llama2") + [normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(steps)
        tokenizer.pre_tokenizer = None
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence(parts + [decoders.Strip(" ", 1, 0)] * (kind == "llama2"))
        kinds = pre_tokenizers.Split(" ", "merged_with_previous")
        if kind == "gemma":
            tokenizer.pre_tokenizer = kinds
    if kind == "unigram-whole":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = None
    return tokenizer


KINDS = ("gpt2", "llama3", "digits", "llama2", "gemma", "first", "always", "unigram", "unigram-whole")
SENTENCE_PIECE = KINDS[3:]


@cache
def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of one of KINDS."""
    backend = _byte_level(kind) if kind in BYTE_LEVEL else _sentence_piece(kind)
    for token in SPECIAL:
        backend.add_special_tokens([AddedToken(token, special=True)])
    names = dict(zip(("unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **names)


def encoder(tokenizer):
    """Return the function that gives the ids of texts without special tokens, as LanguageModel.encode does."""

    def encode(texts):
        return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    return encode
