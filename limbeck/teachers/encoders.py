"""Published text encoders as teachers: a folder as Hugging Face's library writes it, whether downloaded or inside a package.

Read are `config.json`, `vocab.txt` and `model.safetensors`; nothing of the folder is run, and no library of theirs is needed.
"""

import json
from pathlib import Path
from typing import Any

import torch

from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.prepared import tokenizer_file
from limbeck.data.sources.tokenizers import vocabulary_of
from limbeck.data.splits import Meta
from limbeck.edge import tokenizer
from limbeck.errors import CheckpointError
from limbeck.params import EncoderTeacher
from limbeck.teachers import weights
from limbeck.teachers.outside import Brought, built, find_head
from limbeck.teachers.weights import pair

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SIZES = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "places": "max_position_embeddings",
    "segments": "type_vocab_size",
    "eps": "layer_norm_eps",
}
"""Our keyword of the model `bert`, its name in config.json."""
NEEDED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
TABLE = "embeddings.word_embeddings.weight"
LEFT = ("pooler.", "cls.", "embeddings.position_ids")
"""What such files hold beside the encoder: heads of other tasks, and numbers that follow from its sizes."""


def from_encoder(params: EncoderTeacher, data: Path, meta: Meta, folder: Path) -> Brought:
    """A BERT-like encoder with a fresh head.

    Args:
        params: pooling, prefix and digest.
        data: the prepared data, whose tokenizer has to be this encoder's own.
        meta: theirs.
        folder: where `params.folder` was found.

    Raises:
        CheckpointError: the folder lacks a file, is another kind of network, or its vocabulary is not the data's.

    """
    sizes = _sizes(folder)
    pieces, rows = _pieces(folder, data)
    own = {"vocabulary": len(rows), "start": pieces.index("[CLS]"), "end": pieces.index("[SEP]")}
    model = Component.model_validate({"use": "bert", **sizes, **own, "pooling": params.pooling})
    spec = Spec(model=model, shape=meta.shape, dtype=meta.dtype, classes=meta.classes, mean=meta.mean, std=meta.std)
    file = folder / WEIGHTS
    if not file.is_file():
        raise CheckpointError(
            f"{file} is missing; expected weights as safetensors (model.save_pretrained writes them)."
        )
    found = weights.read(file, sha256=params.sha256, key=None, prefix=params.prefix)
    network = built(spec)
    head = find_head(network, spec)
    kept = {name: tensor for name, tensor in found.items() if not name.startswith(LEFT)}
    if (table := kept.get(TABLE)) is not None and len(table) > max(rows):
        kept[TABLE] = table[torch.tensor(rows)]
    pairing = pair(network.body.state_dict(), kept, "names").without(head)
    if not pairing.fits:
        raise CheckpointError(
            f"{file} does not fit the encoder of {folder / CONFIG}:\n{pairing}\n  Where all names begin with the model's "
            "own (`bert.`), name that in teacher.prefix."
        )
    network.body.load_state_dict(pairing.state, strict=False)
    return Brought(spec, network.eval(), f"body.{head}", True)


def _sizes(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
        sizes = {ours: config[theirs] for ours, theirs in SIZES.items()}
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder / CONFIG} is missing; expected a folder as Hugging Face's library saves a model: {CONFIG}, vocab.txt, "
            f"{WEIGHTS}."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG} does not describe a BERT-like encoder: {error!r}.") from None
    others = [f"{key}: {config[key]}" for key, value in NEEDED.items() if config.get(key, value) != value]
    if others:
        wanted = ", ".join(f"{key}: {value}" for key, value in NEEDED.items())
        raise CheckpointError(f"{folder} is another kind of encoder ({', '.join(others)}); known: {wanted}.")
    return sizes


def _pieces(folder: Path, data: Path) -> tuple[tuple[str, ...], list[int]]:
    """The data's pieces, and the encoder's row of each: a code has to name the same piece to both."""
    own = {piece: row for row, piece in enumerate(vocabulary_of(folder)) if piece}
    file = tokenizer_file(data)
    made = None if file is None else tokenizer.read(file)
    if not isinstance(made, tokenizer.WordPiece) or not own.keys() >= {piece for piece in made.pieces if piece}:
        raise CheckpointError(
            f"{data} was not prepared with the vocabulary of {folder}, so its codes mean other pieces. Set data.source.tokenizer "
            f"to {{use: wordpiece, vocabulary: {folder}, size: null, length: 32, lower: true}}."
        )
    if lacking := {"[CLS]", "[SEP]"} - set(made.pieces):
        raise CheckpointError(f"{folder}/vocab.txt has no {' and '.join(sorted(lacking))}; expected BERT's vocabulary.")
    return made.pieces, [own.get(piece, 0) for piece in made.pieces]
