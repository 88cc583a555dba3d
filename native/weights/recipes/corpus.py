#!/usr/bin/env python3
"""Makes training conversations from a checkout of tldr-pages (https://github.com/tldr-pages/tldr, CC BY 4.0).

    git clone https://github.com/tldr-pages/tldr
    python3 corpus.py tldr data
    python3 corpus.py questions 101 24000 data > data/questions-101.jsonl
    python3 corpus.py some 9 17000 data > data/some-1.jsonl
    python3 corpus.py common data > data/common.jsonl

The first writes data/train.jsonl and data/valid.jsonl, {"page", "messages"} a line, and data/questions.jsonl, questions for
`specula generate --batch`; the second makes more of these, by a seed, from what the first wrote; the third picks conversations from it and gives
half of them to programs that do not exist; the fourth picks what is said of programs that most people ask about, and asks some of it in more
ways. The pages of prompts.jsonl are kept for validation. Only the English pages are used; braces of placeholders are removed. Models trained
on it carry the pages' licence and attribution.
"""

import json
import random
import re
import sys
from pathlib import Path

SEED = 7
QUESTIONS = 48_000
# Programs that most people ask about; the ones with commands of their own, with some of these.
COMMON = """
adduser ansible apt apt-get awk base64 basename bash bat bg black brew bzip2 cargo cat cd certbot chgrp chmod chown chsh cksum
clang clear cmake cmp code conda cp crontab curl dd df diff dig dirname dmesg dnf du echo emacs env ex exit expand export expr
factor fdisk ffmpeg ffprobe fg file find finger firewall-cmd fmt fold free ftp g++ gcc gdb git go gpg gradle grep groupadd
gzip head helm help hexdump hg history host hostname htop id ifconfig ifup iostat ip iptables java javac jobs join journalctl
jq jupyter kill killall kubectl less ln locate ls lsblk lscpu lsof magick make man md5sum mkdir mkfs mktemp mongo more mount
mv mvn mypy mysql mysqldump nano netstat nginx nice nl nmap node nohup npm nslookup od open openssl pacman passwd paste patch
perl pg_dump pgrep php ping pip pkill podman poetry pr printf ps psql pwd pytest python rclone read readlink realpath reboot
redis-cli rm rmdir rsync ruby ruff rustc rustup scp screen sed seq service sftp sh sha256sum shred shuf shutdown sleep sort
source split ss ssh ssh-add ssh-copy-id ssh-keygen stat strace strings stty su sudo svn sync systemctl tail tar tcpdump tee
telnet terraform test time timeout tmux top touch tr traceroute tree true tsc type ufw umount uname uniq unzip uptime useradd
userdel usermod uv vagrant venv vim virtualenv w watch wc wget whatis whereis which while who xargs xxd xz yarn yes youtube-dl
yt-dlp zgrep zip zless zsh
"""
COMMON_COMMANDS = """
apt: install
brew: install, uninstall
cargo: add, build, check, clippy, fmt, install, new, run, test
conda: install
docker: build, compose, compose down, compose logs, compose up, container cp, container exec, container logs, container ls
docker: container rm, container run, container start, container stop, image ls, image pull, image rm, inspect, network
docker: system, volume
dotnet: build, run
gh: issue, pr, repo
git: add, bisect, blame, branch, checkout, cherry-pick, clean, clone, commit, diff, fetch, init, log, merge, mv, push
git: rebase, reflog, remote, reset, restore, revert, rm, show, stash, submodule, switch, tag, worktree
go: build, mod, run, test
ip: address, link, route
kubectl: apply, delete, describe, exec, get, logs
npm: init, install, publish, run, uninstall, update
pip: freeze, install, list, uninstall
systemctl: enable, start, status
"""


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


def invented(draw, names):
    """A name for a program that does not exist."""
    one, other = draw.choice(names), draw.choice(names)
    return (one[: max(2, len(one) // 2)] + other[len(other) // 2 :])[:20]


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
            messages = renamed(messages, name, invented(draw, names))
        key = json.dumps(messages)
        if key not in seen and len(asked) < count:
            seen.add(key)
            asked.append({"page": line["page"], "messages": messages})
    return asked


def written(folder):
    """The lines of train.jsonl."""
    return [json.loads(line) for line in Path(folder, "train.jsonl").read_text(encoding="utf-8").splitlines()]


def more(seed, count, folder):
    draw = random.Random(seed)
    train = written(folder)
    names = [line["page"].split("/")[1] for line in train]
    draw.shuffle(train)
    for line in questions(draw, train, names, count):
        print(json.dumps(line, ensure_ascii=False))


def some(seed, count, folder):
    draw = random.Random(seed)
    train = written(folder)
    names = [line["page"].split("/")[1] for line in train]
    draw.shuffle(train)
    for line in train[:count]:
        name = line["page"].split("/", 1)[1]
        if draw.random() < 0.5:
            word, other = rf"(?<![\w-]){re.escape(name)}(?![\w-])", invented(draw, names)
            line["messages"] = [{**m, "content": re.sub(word, lambda _: other, m["content"])} for m in line["messages"]]
        print(json.dumps(line, ensure_ascii=False))


def common(folder):
    programs = set(COMMON.split())
    for program, commands in (line.split(": ") for line in COMMON_COMMANDS.split("\n") if line):
        programs |= {f"{program} {command}" for command in commands.split(", ")}
    for line in written(folder):
        place, name = line["page"].split("/", 1)
        if name not in programs or place not in ("common", "linux"):
            continue
        asked, *answers = line["messages"]
        # Whole pages are long; one question for each will do.
        if asked["content"] in (name, f"Show me examples of {name}."):
            continue
        questions = [asked["content"]]
        what = asked["content"].removeprefix(f"{name}: ")
        if what != asked["content"]:
            # As somebody asks who does not know which program does it, or which of a program's commands.
            questions += [f"How do I {what}?", f"{name.split()[0]}: {what}"]
        for question in dict.fromkeys(questions):
            messages = [{**asked, "content": question}, *answers]
            print(json.dumps({"page": line["page"], "messages": messages}, ensure_ascii=False))


def main(tldr, out):
    prompts = Path(__file__).parent.parent / "prompts.jsonl"
    kept_back = {json.loads(line)["page"] for line in prompts.read_text(encoding="utf-8").splitlines()}
    draw = random.Random(SEED)
    train, valid, names = [], [], []
    for path in sorted(Path(tldr, "pages").glob("*/*.md")):
        name, about, examples = read(path)
        page = f"{path.parent.name}/{name}"
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
        case ["some", seed, count, folder]:
            some(int(seed), int(count), folder)
        case ["common", folder]:
            common(folder)
        case [tldr, out]:
            main(tldr, out)
        case _:
            sys.exit(__doc__)
