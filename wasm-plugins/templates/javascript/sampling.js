// Makes a token that was just drawn less likely to be drawn again: `penalty` is taken from its logit, for the `last` tokens
// of the text.

import rows from "specula:policy/rows@0.1.0";

const BAD_CONFIG = 1;

let last = 0;
let penalty = 0;

function open(_model, config) {
  const values = JSON.parse(config);
  last = values.last ?? 8;
  penalty = values.penalty ?? 1;
  const unknown = Object.keys(values).some((key) => key !== "last" && key !== "penalty");
  const fits = Number.isInteger(last) && last >= 1 && last <= 64 && Number.isFinite(penalty) && penalty >= 0 && penalty <= 100;
  if (unknown || !fits) {
    throw { code: BAD_CONFIG, message: `only \`last\` (1 to 64) and \`penalty\` (0 to 100) are known; got ${config}` };
  }
}

// State moves in `commit` alone; row `i` may depend on the committed text and the draft tokens before it alone.
class Session {
  constructor() {
    this.text = [];
  }

  adjust(draft, first) {
    for (let row = first; row <= draft.length; row++) {
      const recent = [...new Set([...this.text, ...draft.slice(0, row)].slice(-last))].sort((a, b) => a - b);
      rows.bias(row, recent, recent.map(() => -penalty));
    }
  }

  commit(tokens) {
    this.text = [...this.text, ...tokens].slice(-last);
  }

  fork() {
    const copy = new Session();
    copy.text = [...this.text];
    return copy;
  }
}

export const sampling = { open, Session };
