"""Records the bodies that clients send, byte by byte, into tests/clients/recorded.

A recorder on the loopback interface keeps each body in a file and refuses the request: what the
client does with a response is not asked here. The first segment of a path names the file, so that
clients need no more than a base URL. Run it in an environment with the packages that
recorded/README.md lists; each argument is a command that runs further clients against the URL put
behind it: `python record.py "node record.mjs" "python record_vllm.py FILE VERSION"`.
"""

import importlib.metadata
import pathlib
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import openai
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

HERE = pathlib.Path(__file__).parent
RECORDED = HERE / "recorded"

MODEL = "m"
SYSTEM = "Answer in one sentence."
# tests/clients/main.rs makes a long prompt of it.
QUESTION = "Why is the sky blue?"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Where"}},
    "required": ["city"],
}
TOOL = {"name": "weather", "description": "Today's weather <now>", "parameters": PARAMETERS}

system = {"role": "system", "content": SYSTEM}
user = {"role": "user", "content": QUESTION}
shown = {
    "role": "user",
    "content": [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ],
}


class Recorder(BaseHTTPRequestHandler):
    """Keeps the body of a POST to /NAME/... in NAME.json."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        name = self.path.split("/")[1]
        (RECORDED / f"{name}.json").write_bytes(self.read())
        # Of all failures the one that no client tries again.
        response = b'{"error": {"message": "recorded", "type": "invalid_request_error"}}'
        self.send_response(400)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(response)))
        self.end_headers()
        self.wfile.write(response)

    def read(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers["content-length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *_):
        pass


class Client:
    """A client's requests under its name and version."""

    def __init__(self, server, name, package):
        version = importlib.metadata.version(package)
        self.base = f"http://127.0.0.1:{server.server_port}/{name}-{version}"
        self.file = RECORDED / f"{name}-{version}"

    def send(self, what, request):
        """Calls `request` with the base URL; the response is always the recorder's refusal."""
        file = self.file.with_name(f"{self.file.name}-{what}.json")
        file.unlink(missing_ok=True)
        try:
            request(f"{self.base}-{what}")
        except (openai.BadRequestError, anthropic.BadRequestError):
            pass
        if not file.exists():
            sys.exit(f"{file.name}: nothing was sent")
        print(file.name)


def openai_python(server):
    """The official package, chat to responses."""
    client = Client(server, "openai-python", "openai")

    def send(what, call):
        client.send(what, lambda base: call(openai.OpenAI(base_url=f"{base}/v1", api_key="none")))

    chats = {
        "chat": {"messages": [user]},
        "chat-stream": {"messages": [user], "stream": True, "stream_options": {"include_usage": True}},
        "chat-system": {"messages": [system, user], "temperature": 0, "max_tokens": 64},
        "chat-tools": {"messages": [user], "tools": [{"type": "function", "function": TOOL}]},
        "chat-image": {"messages": [shown]},
        # What the package does not know is put behind what it knows.
        "chat-salt": {"messages": [user], "extra_body": {"cache_salt": "tenant"}},
    }
    for what, fields in chats.items():
        send(what, lambda api: api.chat.completions.create(model=MODEL, **fields))
    send("completions", lambda api: api.completions.create(model=MODEL, prompt=QUESTION, max_tokens=64))
    send("embeddings", lambda api: api.embeddings.create(model=MODEL, input=[QUESTION]))
    send("responses", lambda api: api.responses.create(model=MODEL, input=QUESTION))
    tool = {"type": "function", **TOOL}
    send("responses-tools", lambda api: api.responses.create(
        model=MODEL, input=[user], instructions=SYSTEM, tools=[tool], stream=True))


def anthropic_python(server):
    """The official package, messages and the count of their tokens."""
    client = Client(server, "anthropic-python", "anthropic")
    image = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    seen = {"role": "user", "content": [{"type": "text", "text": QUESTION}, {"type": "image", "source": image}]}
    tool = {"name": TOOL["name"], "description": TOOL["description"], "input_schema": PARAMETERS}
    for what, fields in {
        "messages": {"messages": [user]},
        "messages-stream": {"messages": [user], "stream": True},
        "messages-system": {"messages": [user], "system": SYSTEM},
        "messages-tools": {"messages": [user], "system": SYSTEM, "tools": [tool]},
        "messages-image": {"messages": [seen]},
    }.items():
        client.send(what, lambda base: anthropic.Anthropic(base_url=base, api_key="none")
                    .messages.create(model=MODEL, max_tokens=64, **fields))
    client.send("messages-count", lambda base: anthropic.Anthropic(base_url=base, api_key="none")
                .messages.count_tokens(model=MODEL, system=SYSTEM, messages=[user]))


def langchain_openai(server):
    """LangChain over OpenAI's API."""
    client = Client(server, "langchain-openai-python", "langchain-openai")

    def send(what, call, **fields):
        client.send(what, lambda base: call(
            ChatOpenAI(model=MODEL, base_url=f"{base}/v1", api_key="none", max_retries=0, **fields)))

    turns = [SystemMessage(SYSTEM), HumanMessage(QUESTION)]
    send("chat", lambda chat: chat.invoke(QUESTION))
    send("chat-stream", lambda chat: list(chat.stream(turns)))
    send("chat-system", lambda chat: chat.invoke(turns), temperature=0, max_tokens=64)
    send("chat-tools", lambda chat: chat.bind_tools([TOOL]).invoke(turns))
    send("chat-image", lambda chat: chat.invoke([HumanMessage(shown["content"])]))
    send("responses", lambda chat: chat.invoke(turns), use_responses_api=True)
    where = {"model": MODEL, "api_key": "none", "max_retries": 0}
    client.send("completions", lambda base: OpenAI(base_url=f"{base}/v1", **where).invoke(QUESTION))
    # Without this it sends tokens, and would have to fetch a vocabulary for that.
    plain = {"check_embedding_ctx_length": False}
    client.send("embeddings", lambda base: OpenAIEmbeddings(base_url=f"{base}/v1", **plain, **where)
                .embed_documents([QUESTION]))


def langchain_anthropic(server):
    """LangChain over Anthropic's API."""
    client = Client(server, "langchain-anthropic-python", "langchain-anthropic")

    def send(what, call):
        client.send(what, lambda base: call(
            ChatAnthropic(model=MODEL, base_url=base, api_key="none", max_tokens=64, max_retries=0)))

    turns = [SystemMessage(SYSTEM), HumanMessage(QUESTION)]
    send("messages", lambda chat: chat.invoke(QUESTION))
    send("messages-stream", lambda chat: list(chat.stream(turns)))
    send("messages-system", lambda chat: chat.invoke(turns))
    send("messages-tools", lambda chat: chat.bind_tools([TOOL]).invoke(turns))
    send("messages-image", lambda chat: chat.invoke([HumanMessage(shown["content"])]))


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for client in (openai_python, anthropic_python, langchain_openai, langchain_anthropic):
        client(server)
    for command in sys.argv[1:]:
        url = f"http://127.0.0.1:{server.server_port}"
        subprocess.run([*shlex.split(command), url], check=True)


main()
