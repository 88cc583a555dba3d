"""OpenAI's own Python package, unchanged, against the server."""

import asyncio
import time
import urllib.request

import openai
import pytest


def test_a_chat_is_answered(ask):
    answer = ask()
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.specula["lossless"] is True


def test_a_text_is_continued(tell):
    answer = tell()
    assert answer.object == "text_completion" and answer.choices[0].text


def test_the_same_seed_gives_the_same_text_in_every_method(ask):
    texts = {
        ask(temperature=1, extra_body={"speculation": {"method": method}}).choices[0].message.content
        for method in ("none", "sps", "lookup", "mirror")
    }
    assert len(texts) == 1
    assert ask(temperature=1, seed=8).choices[0].message.content not in texts


def test_a_chat_streams_with_its_usage(ask):
    whole = ask()
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_text_streams(tell):
    assert "".join(chunk.choices[0].text for chunk in tell(stream=True)) == tell().choices[0].text


def test_the_stream_helper_puts_the_answer_together(client, model, ask):
    question = [{"role": "user", "content": "How do I list open ports?"}]
    with client.chat.completions.stream(model=model, messages=question, seed=7, max_tokens=16) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == ask().choices[0].message.content


def test_several_choices(ask, tell):
    answer = ask(n=3, temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    streamed = {0: "", 1: "", 2: ""}
    for chunk in ask(n=3, temperature=1, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(streamed.values()) == [choice.message.content for choice in answer.choices]
    assert len(tell(prompt=["- List all files", "- Show the date"], n=2).choices) == 4


def test_log_probabilities(ask, tell):
    content = ask(logprobs=True, top_logprobs=2, temperature=0).choices[0].logprobs.content
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in content)
    assert all(bytes(entry.bytes).decode() == entry.token for entry in content)
    told = tell(logprobs=3, echo=True).choices[0]
    assert told.text.startswith("- List all files") and "".join(told.logprobs.tokens) == told.text
    assert len(told.logprobs.top_logprobs[-1]) == 3 and told.logprobs.token_logprobs[0] is None
    assert tell(prompt="- List all files", echo=True, max_tokens=0).choices[0].text == "- List all files"


def test_stop_strings_and_biases(ask):
    # Its answer has more than three words.
    question = [{"role": "user", "content": "How do I use ssh?"}]
    whole = ask(messages=question, temperature=0, max_tokens=32).choices[0].message.content
    word = whole.split()[2]
    stopped = ask(messages=question, temperature=0, max_tokens=32, stop=["never said", word]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.message.content == whole.split(word)[0]
    first = ask(temperature=0, max_tokens=1).choices[0].message.content
    assert ask(temperature=0, max_tokens=1, logit_bias={"300": 100}).choices[0].message.content != first


def test_penalties_and_the_newer_names(ask):
    answer = ask(presence_penalty=0.5, frequency_penalty=0.5, top_p=0.9, max_tokens=openai.omit, max_completion_tokens=8)
    assert answer.usage.completion_tokens <= 8
    assert ask(user="u", metadata={"a": "b"}, store=False, service_tier="auto", n=1, response_format={"type": "text"})
    assert ask(messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "What is ls?"}])


def test_models(client, model):
    card = client.models.retrieve(model)
    assert card.id == model and card.context_length == 1024 and card.row_invariant is True
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-4")
    assert missing.value.code == "model_not_found"


def test_a_bad_field_is_a_bad_request(ask):
    for fields, param in (
        ({"temperature": 3}, "temperature"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"extra_body": {"best_of": 2}}, "best_of"),
        ({"n": 99}, "n"),
        ({"messages": []}, "messages"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(**fields)
        assert refused.value.status_code == 400 and refused.value.param == param
        assert refused.value.type == "invalid_request_error" and f"`{param}`" in str(refused.value)
    with pytest.raises(openai.NotFoundError):
        ask(model="gpt-4")


def test_a_full_server_limits_its_rate(model):
    # The second server of the run: one generation at a time, none waiting.
    import os

    client = openai.OpenAI(base_url=os.environ["SPECULA_SMALL_URL"] + "/v1", api_key="-", max_retries=0, timeout=60)
    endless = {"model": model, "prompt": "x", "extra_body": {"ignore_eos": True}}
    with client.completions.create(stream=True, **endless) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as refused:
            client.completions.create(max_tokens=1, **endless)
        assert int(refused.value.response.headers["retry-after"]) >= 1
    # With its place free again a client that tries again, as the package does by itself, is served.
    patient = client.with_options(max_retries=10)
    assert patient.completions.create(model=model, prompt="x", max_tokens=1).usage.completion_tokens == 1


def running(url):
    metrics = urllib.request.urlopen(f"{url}/metrics").read().decode()
    return float(next(line for line in metrics.splitlines() if line.startswith("specula_generations_running ")).split()[1])


def test_closing_a_stream_ends_its_generation(tell, url):
    with tell(stream=True, max_tokens=openai.omit, extra_body={"ignore_eos": True}) as stream:
        next(iter(stream))
    deadline = time.monotonic() + 30
    while running(url) > 0:
        assert time.monotonic() < deadline, "the generation goes on"
        time.sleep(0.05)


def test_a_time_out_is_one_of_the_client(client, model):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.01).completions.create(model=model, prompt="x", n=4, extra_body={"ignore_eos": True})


def test_the_request_s_id_is_told(ask, client, model):
    assert ask()._request_id.startswith("req-")
    assert ask(extra_headers={"x-request-id": "mine"})._request_id == "mine"
    raw = client.models.with_raw_response.list()
    assert raw.headers["x-request-id"]


def test_many_at_once_say_what_each_says_alone(url, model, ask):
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0, timeout=60)

    async def one(seed):
        question = [{"role": "user", "content": "How do I list open ports?"}]
        answer = await client.chat.completions.create(model=model, messages=question, seed=seed, max_tokens=16)
        return answer.choices[0].message.content

    async def all_of_them():
        return await asyncio.gather(*(one(seed) for seed in range(6)))

    together = asyncio.run(all_of_them())
    assert together == [ask(seed=seed).choices[0].message.content for seed in range(6)]
