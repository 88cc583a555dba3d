// Ends a text after so many `sentences`.

const BAD_CONFIG = 1;
const MARK = /[.!?]/g;

let sentences = 0;

function open(_model, config) {
  const values = JSON.parse(config);
  sentences = values.sentences ?? 1;
  const unknown = Object.keys(values).some((key) => key !== "sentences");
  if (unknown || !Number.isInteger(sentences) || sentences < 1) {
    throw { code: BAD_CONFIG, message: `only \`sentences\` is known, a whole number from 1; got ${config}` };
  }
}

class Session {
  constructor() {
    this.ended = 0;
  }

  // Token `i` completed the bytes from `ends[i - 1]` to `ends[i]` of the text in UTF-8.
  observe(tokens, text, ends) {
    let start = 0;
    let byte = 0;
    let at = 0;
    for (let i = 0; i < tokens.length; i++) {
      while (byte < ends[i]) {
        const code = text.codePointAt(at);
        byte += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        at += code < 0x10000 ? 1 : 2;
      }
      this.ended += (text.slice(start, at).match(MARK) ?? []).length;
      start = at;
      if (this.ended >= sentences) {
        return { keep: i + 1, reason: `${this.ended} sentences` };
      }
    }
    return null;
  }

  fork() {
    const copy = new Session();
    copy.ended = this.ended;
    return copy;
  }
}

export const stopping = { open, Session };
