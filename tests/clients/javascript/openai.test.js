// OpenAI's own JavaScript package, unchanged, against the server that SPECULA_URL names.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

const url = process.env.SPECULA_URL;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none is needed", maxRetries: 0, timeout: 60_000 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "How do I use ssh?" }];

const ask = (fields) => client.chat.completions.create({ model, messages, seed: 7, max_tokens: 16, ...fields });
const tell = (fields) => client.completions.create({ model, prompt: "- List all files", seed: 7, max_tokens: 16, ...fields });

test("a chat is answered, the same by every method", async () => {
  const texts = new Set();
  for (const method of ["none", "sps", "lookup", "mirror"]) {
    const answer = await ask({ temperature: 1, speculation: { method } });
    assert.equal(answer.object, "chat.completion");
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
    texts.add(answer.choices[0].message.content);
  }
  assert.equal(texts.size, 1);
});

test("a chat streams with its usage", async () => {
  const whole = await ask();
  let text = "";
  let last;
  for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta.content ?? "";
    last = chunk;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(last.usage, whole.usage);
});

test("the stream helper puts the answer together", async () => {
  const stream = client.chat.completions.stream({ model, messages, seed: 7, max_tokens: 16 });
  assert.equal(await stream.finalContent(), (await ask()).choices[0].message.content);
});

test("a text is continued, streamed too", async () => {
  let text = "";
  for await (const chunk of await tell({ stream: true })) text += chunk.choices[0].text;
  assert.equal(text, (await tell()).choices[0].text);
});

test("several choices, log-probabilities, stop strings", async () => {
  const three = await ask({ n: 3, temperature: 1 });
  assert.equal(new Set(three.choices.map((choice) => choice.message.content)).size, 3);
  const told = await ask({ logprobs: true, top_logprobs: 2, temperature: 0, max_tokens: 32 });
  for (const entry of told.choices[0].logprobs.content) assert.equal(entry.top_logprobs.length, 2);
  const whole = told.choices[0].message.content;
  const word = whole.split(/\s+/)[2];
  const stopped = await ask({ temperature: 0, max_tokens: 32, stop: [word] });
  assert.equal(stopped.choices[0].message.content, whole.slice(0, whole.indexOf(word)));
  const echoed = await tell({ echo: true, logprobs: 1 });
  assert.equal(echoed.choices[0].logprobs.tokens.join(""), echoed.choices[0].text);
});

test("faults are the package's own errors", async () => {
  await assert.rejects(ask({ temperature: 3 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.status, error.param, error.code], [400, "temperature", "out_of_bounds"]);
    return true;
  });
  await assert.rejects(client.models.retrieve("gpt-4"), OpenAI.NotFoundError);
  await assert.rejects(ask({ best_of: 2 }), OpenAI.BadRequestError);
});

test("models and request ids are told", async () => {
  assert.equal((await client.models.retrieve(model)).context_length, 1024);
  const { request_id: id } = await ask().withResponse();
  assert.match(id, /^req-/);
});

test("an aborted stream ends its generation", async () => {
  const stream = await tell({ stream: true, max_tokens: undefined, ignore_eos: true });
  for await (const _ of stream) {
    stream.controller.abort();
    break;
  }
  const running = async () => {
    const metrics = await (await fetch(`${url}/metrics`)).text();
    return Number(metrics.match(/^specula_generations_running (\S+)/m)[1]);
  };
  const deadline = Date.now() + 30_000;
  while ((await running()) > 0) {
    assert.ok(Date.now() < deadline, "the generation goes on");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
});
