"""Logits of models as Hugging Face's transformers computes them, in f32 on the CPU.

Reads from standard input a JSON list of [path, tokens], where path is a model's folder or a .gguf file, and prints a
list of their logits, [tokens, vocabulary] each. With --texts the second entry is a list of texts and chats instead (a
chat is a list of messages), and the answers are their tokens: of a text as it is encoded on its own, of a chat up to
where the assistant's answer begins.

Needs `pip install torch transformers` (and `gguf accelerate` for .gguf files).
"""

import json
import os
import sys

import torch
import transformers

os.environ["HF_HUB_OFFLINE"] = "1"
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def place(path):
    """Where a model is, as from_pretrained wants it."""
    folder, name = os.path.split(path)
    return (folder, {"gguf_file": name}) if name.endswith(".gguf") else (path, {})


def logits(path, tokens):
    folder, kind = place(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **kind
    ).eval()
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].tolist()


def encoded(path, texts):
    folder, kind = place(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **kind)
    # Given a date, templates do not ask the clock, which the templates under test do not have.
    settings = {"add_generation_prompt": True, "return_dict": False, "date_string": "26 Jul 2024"}
    chat = lambda messages: tokenizer.apply_chat_template(messages, **settings)
    return [tokenizer(text)["input_ids"] if isinstance(text, str) else chat(text) for text in texts]


answer = encoded if "--texts" in sys.argv else logits
json.dump([answer(path, asked) for path, asked in json.load(sys.stdin)], sys.stdout)
