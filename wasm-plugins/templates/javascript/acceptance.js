// Keeps draft tokens that are among the target's `rank` + 1 best, besides those that are its own draw. Lossy: the answer
// says how many tokens were not the target's own.

const BAD_CONFIG = 1;

let rank = 0;

function open(model, config) {
  const values = JSON.parse(config);
  rank = values.rank ?? 1;
  const unknown = Object.keys(values).some((key) => key !== "rank");
  if (unknown || !Number.isInteger(rank) || rank < 0 || rank >= model.vocabSize) {
    throw { code: BAD_CONFIG, message: `only \`rank\` is known, a whole number below ${model.vocabSize}; got ${config}` };
  }
}

// State, if there is any, moves in `commit` alone: `judge` may be called again, or its answer thrown away.
class Session {
  judge(window) {
    for (let i = 0; i < window.draft.length; i++) {
      if (window.draft[i] !== window.ownDraw[i] && window.rank[i] > rank) {
        return i;
      }
    }
    return window.draft.length;
  }

  commit(_tokens) {}

  fork() {
    return new Session();
  }
}

export const acceptance = { open, Session };
