"""One client of the running server for all tests; SPECULA_URL names it."""

import os

import openai
import pytest


@pytest.fixture(scope="session")
def url():
    return os.environ["SPECULA_URL"]


@pytest.fixture(scope="session")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none is needed", max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture
def ask(client, model):
    """A seeded chat with one question."""

    def ask(**fields):
        question = [{"role": "user", "content": "How do I list open ports?"}]
        return client.chat.completions.create(**{"model": model, "messages": question, "seed": 7, "max_tokens": 16, **fields})

    return ask


@pytest.fixture
def tell(client, model):
    """A seeded text to go on with."""

    def tell(**fields):
        return client.completions.create(**{"model": model, "prompt": "- List all files", "seed": 7, "max_tokens": 16, **fields})

    return tell
