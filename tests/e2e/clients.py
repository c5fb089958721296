"""The official OpenAI and Anthropic packages against what listens at URL: `clients.py URL`, with the
cases to leave out behind it.

Behind it are simulated model servers, which respond with eight tokens, call the first tool that they are
offered, and name themselves in `x-served-by`. Each function below is a case; its name is
what clients.rs fails with.
"""

import asyncio
import json
import sys
import traceback

import anthropic
import openai

URL = sys.argv[1]
MODEL = "demo"
RESPONSE = "token " * 8
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ABOUT = {"name": "weather", "description": "Today's weather <now> & here"}
QUESTION = {"role": "user", "content": "Why is the sky blue?"}

# What goes wrong is to be seen, not tried again.
oai = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0, timeout=30)
claude = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0, timeout=30)
CASES = []


def case(function):
    CASES.append(function)
    return function


def same(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def long_prompt(about):
    return " ".join(f"{about} {number}" for number in range(1000))


# --- OpenAI ---


@case
def openai_models():
    same([model.id for model in oai.models.list()], [MODEL])


def chat(**fields):
    return oai.chat.completions.create(model=MODEL, **fields)


@case
def openai_chat():
    response = chat(messages=[{"role": "system", "content": "Be brief."}, QUESTION])
    same(response.choices[0].message.content, RESPONSE)
    same(response.usage.completion_tokens, 8)
    same(response.usage.total_tokens, response.usage.prompt_tokens + 8)


@case
def openai_chat_streamed():
    chunks = list(chat(messages=[QUESTION], stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    same("".join(filter(None, pieces)), RESPONSE)
    same(chunks[-1].usage.completion_tokens, 8)


@case
def openai_chat_streamed_by_the_helper():
    with oai.chat.completions.stream(model=MODEL, messages=[QUESTION]) as stream:
        same(stream.get_final_completion().choices[0].message.content, RESPONSE)


FUNCTION = {"type": "function", "function": {**ABOUT, "parameters": SCHEMA}}


@case
def openai_tools_there_and_back():
    turns = [QUESTION]
    response = chat(messages=turns, tools=[FUNCTION]).choices[0]
    same(response.finish_reason, "tool_calls")
    call = response.message.tool_calls[0]
    same((call.function.name, json.loads(call.function.arguments)), ("weather", {}))
    turns += [response.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    same(chat(messages=turns, tools=[FUNCTION]).choices[0].message.content, RESPONSE)


@case
def openai_tools_streamed():
    stream = chat(messages=[QUESTION], tools=[FUNCTION], stream=True)
    calls = [chunk.choices[0].delta.tool_calls for chunk in stream]
    functions = [call[0].function for call in calls if call]
    same("".join(function.name or "" for function in functions), "weather")
    same("".join(function.arguments or "" for function in functions), "{}")


@case
def openai_image_within():
    url = f"data:image/png;base64,{PIXEL}"
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    same(chat(messages=[{"role": "user", "content": parts}]).choices[0].message.content, RESPONSE)


@case
def openai_image_of_two_megabytes():
    url = "data:image/png;base64," + PIXEL[:-2] + "A" * (2 << 20)
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    same(chat(messages=[{"role": "user", "content": parts}]).choices[0].message.content, RESPONSE)


@case
def openai_completions():
    response = oai.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=3)
    same(response.choices[0].text, "token " * 3)


@case
def openai_completions_streamed():
    stream = oai.completions.create(model=MODEL, prompt=["Once upon a time"], stream=True)
    same("".join(chunk.choices[0].text for chunk in stream), RESPONSE)


@case
def openai_embeddings():
    response = oai.embeddings.create(model=MODEL, input=["one", "two"])
    same([data.embedding for data in response.data], [[0.5, -0.5, 0.25, 1.0]] * 2)


@case
def openai_embeddings_of_tokens():
    response = oai.embeddings.create(model=MODEL, input=[1, 2, 3], encoding_format="float")
    same([data.embedding for data in response.data], [[0.5, -0.5, 0.25, 1.0]])


@case
def openai_responses():
    response = oai.responses.create(model=MODEL, input="Why?", instructions="Be brief.")
    same(response.output_text, RESPONSE)
    same(response.usage.output_tokens, 8)


@case
def openai_responses_streamed():
    with oai.responses.stream(model=MODEL, input=[QUESTION]) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        same("".join(pieces), RESPONSE)
        same(stream.get_final_response().usage.output_tokens, 8)


@case
def openai_responses_tools_there_and_back():
    tools = [{"type": "function", **ABOUT, "parameters": SCHEMA}]
    turns = [QUESTION]
    call = oai.responses.create(model=MODEL, input=turns, tools=tools).output[0]
    same((call.type, call.name, call.arguments), ("function_call", "weather", "{}"))
    turns += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    same(oai.responses.create(model=MODEL, input=turns, tools=tools).output_text, RESPONSE)


def stays_with_one(first, again):
    """Four conversations of their own, each of which comes back three times."""
    for about in ("red", "green", "blue", "white"):
        prompt = long_prompt(f"{first.__name__} {about}")
        pod = first(prompt)
        same([again(prompt) for _ in range(3)], [pod] * 3)


@case
def openai_conversations_stay_where_they_are():
    def turn(turns):
        response = oai.chat.completions.with_raw_response.create(model=MODEL, messages=turns)
        same(response.parse().choices[0].message.content, RESPONSE)
        return response.headers["x-served-by"]

    def first(prompt):
        return turn([{"role": "user", "content": prompt}])

    def again(prompt):
        return turn([{"role": "user", "content": prompt}, {"role": "assistant", "content": RESPONSE}, QUESTION])

    stays_with_one(first, again)


@case
def openai_many_at_once():
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0) as client:
            asked = [
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": long_prompt(n)}])
                for n in range(50)
            ]
            return await asyncio.gather(*asked)

    same([response.choices[0].message.content for response in asyncio.run(ask())], [RESPONSE] * 50)


@case
def openai_refusals_of_the_model_server():
    try:
        oai.post("/chat/completions", cast_to=object, body=[])
    except openai.BadRequestError as refusal:
        same(refusal.response.text, "the body is not a JSON object")
    else:
        raise AssertionError("no refusal")


# --- Anthropic ---


def message(**fields):
    return claude.messages.create(model=MODEL, max_tokens=8, **fields)


@case
def anthropic_messages():
    response = message(system="Be brief.", messages=[QUESTION])
    same(response.content[0].text, RESPONSE)
    same(response.usage.output_tokens, 8)


@case
def anthropic_messages_streamed():
    events = list(message(messages=[QUESTION], stream=True))
    texts = [event.delta.text for event in events if event.type == "content_block_delta"]
    same("".join(texts), RESPONSE)
    same(events[-1].type, "message_stop")


@case
def anthropic_messages_streamed_by_the_helper():
    with claude.messages.stream(model=MODEL, max_tokens=8, messages=[QUESTION]) as stream:
        same("".join(stream.text_stream), RESPONSE)
        same(stream.get_final_message().usage.output_tokens, 8)


TOOL = {**ABOUT, "input_schema": SCHEMA}


@case
def anthropic_tools_there_and_back():
    turns = [QUESTION]
    response = message(messages=turns, tools=[TOOL], system="Be brief.")
    same(response.stop_reason, "tool_use")
    call = response.content[0]
    same((call.name, call.input), ("weather", {}))
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    turns += [{"role": "assistant", "content": response.content}, {"role": "user", "content": [result]}]
    same(message(messages=turns, tools=[TOOL], system="Be brief.").content[0].text, RESPONSE)


@case
def anthropic_tools_streamed():
    with claude.messages.stream(model=MODEL, max_tokens=8, messages=[QUESTION], tools=[TOOL]) as stream:
        call = stream.get_final_message().content[0]
    same((call.name, call.input), ("weather", {}))


@case
def anthropic_image_within():
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    same(message(messages=[{"role": "user", "content": parts}]).content[0].text, RESPONSE)


@case
def anthropic_count_tokens():
    short = claude.messages.count_tokens(model=MODEL, messages=[QUESTION])
    long = claude.messages.count_tokens(model=MODEL, messages=[QUESTION], system="Be brief.")
    assert 0 < short.input_tokens < long.input_tokens, (short, long)


@case
def anthropic_conversations_stay_where_they_are():
    def turn(turns):
        response = claude.messages.with_raw_response.create(
            model=MODEL, max_tokens=8, system="Be brief.", messages=turns)
        same(response.parse().content[0].text, RESPONSE)
        return response.headers["x-served-by"]

    def first(prompt):
        return turn([{"role": "user", "content": prompt}])

    def again(prompt):
        return turn([{"role": "user", "content": prompt}, {"role": "assistant", "content": RESPONSE}, QUESTION])

    stays_with_one(first, again)


def main():
    failed = []
    for run in CASES:
        if run.__name__ in sys.argv[2:]:
            continue
        try:
            run()
        except Exception:
            failed.append(run.__name__)
            print(f"--- {run.__name__}\n{traceback.format_exc()}")
    print(f"{len(CASES)} cases, failed: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed))


main()
