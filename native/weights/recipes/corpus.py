#!/usr/bin/env python3
"""Makes training conversations from a checkout of tldr-pages (https://github.com/tldr-pages/tldr, CC BY 4.0).

    git clone https://github.com/tldr-pages/tldr
    python3 corpus.py tldr data
    python3 corpus.py questions 101 24000 data > data/questions-101.jsonl

The first writes data/train.jsonl and data/valid.jsonl, {"page", "messages"} a line, and data/questions.jsonl, questions for
`specula generate --batch`; the second makes more of these, by a seed, from what the first wrote. The pages of prompts.jsonl are
kept for validation. Only the English pages are used; braces of placeholders are removed. Models trained on it carry the pages' licence and attribution.
"""

import json
import random
import re
import sys
from pathlib import Path

SEED = 7
QUESTIONS = 48_000


def read(path):
    """A page: its name, description and examples (what, command)."""
    name, about, examples, what = path.stem, [], [], None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            name = line[2:].strip()
        elif line.startswith("> ") and not line.startswith("> More information"):
            about.append(line[2:].strip())
        elif line.startswith("- "):
            # Letters in brackets are the pages' mnemonics.
            what = re.sub(r"\[(\w+)\]", r"\1", line[2:].rstrip(":").strip())
        elif line.startswith("`") and line.endswith("`") and what:
            command = re.sub(r"\{\{\[([^|\]]*)\|([^\]]*)\]\}\}", r"\2", line.strip("`"))
            examples.append((what, command.replace("{{", "").replace("}}", "")))
            what = None
    return name, " ".join(about), examples


def lower(text):
    return text[:1].lower() + text[1:]


def conversations(name, about, examples):
    def chat(*turns):
        roles = ["user", "assistant"]
        return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]

    page = about + "".join(f"\n\n- {what}:\n\n      {command}" for what, command in examples)
    for question in (f"How do I use {name}?", f"Show me examples of {name}.", name):
        yield chat(question, page)
    for question in (f"What is {name}?", f"What does {name} do?"):
        yield chat(question, about)
    for what, command in examples:
        yield chat(f"How do I {lower(what)} with {name}?", command)
        yield chat(f"{name}: {lower(what)}", command)
        yield chat(f"Explain: {command}", what + ".")
    if len(examples) >= 2:
        turns = [f"What is {name}?", about]
        for what, command in examples[:3]:
            turns += [f"How do I {lower(what)}?", command]
        yield chat(*turns)


def renamed(messages, name, other):
    return [{**message, "content": message["content"].replace(name, other)} for message in messages]


def questions(draw, train, names, count):
    """At most `count` questions of conversations in the order that they have, each once."""
    asked, seen = [], set()
    for line in train:
        messages, name = line["messages"][:-1], line["page"].split("/")[1]
        # Acceptance is counted by token: what is answered in a line is asked more seldom than what takes a page.
        if draw.random() > 0.15 + len(line["messages"][-1]["content"]) / 400:
            continue
        # Programs that do not exist: what the target says of them is what it will say of pages it has not seen.
        if draw.random() < 0.6:
            one, other = draw.choice(names), draw.choice(names)
            messages = renamed(messages, name, (one[: max(2, len(one) // 2)] + other[len(other) // 2 :])[:20])
        key = json.dumps(messages)
        if key not in seen and len(asked) < count:
            seen.add(key)
            asked.append({"page": line["page"], "messages": messages})
    return asked


def more(seed, count, folder):
    draw = random.Random(seed)
    train = [json.loads(line) for line in Path(folder, "train.jsonl").read_text(encoding="utf-8").splitlines()]
    names = [line["page"].split("/")[1] for line in train]
    draw.shuffle(train)
    for line in questions(draw, train, names, count):
        print(json.dumps(line, ensure_ascii=False))


def main(tldr, out):
    prompts = Path(__file__).parent.parent / "prompts.jsonl"
    kept_back = {json.loads(line)["page"] for line in prompts.read_text(encoding="utf-8").splitlines()}
    draw = random.Random(SEED)
    train, valid, names = [], [], []
    for path in sorted(Path(tldr, "pages").glob("*/*.md")):
        page = f"{path.parent.name}/{path.stem}"
        name, about, examples = read(path)
        names.append(name)
        lines = [{"page": page, "messages": messages} for messages in conversations(name, about, examples)]
        (valid if page in kept_back else train).extend(lines)
    draw.shuffle(train)
    asked = questions(draw, train, names, QUESTIONS)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for file, lines in (("train", train), ("valid", valid), ("questions", asked)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{file}.jsonl").write_text(text, encoding="utf-8")
        print(f"{file}.jsonl: {len(lines)} lines")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["questions", seed, count, folder]:
            more(int(seed), int(count), folder)
        case [tldr, out]:
            main(tldr, out)
        case _:
            sys.exit(__doc__)
