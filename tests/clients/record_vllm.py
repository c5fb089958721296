"""vLLM's benchmark for record.py: `python record_vllm.py REQUEST_FUNC VERSION URL`.

REQUEST_FUNC is vllm/benchmarks/lib/endpoint_request_func.py out of vLLM's wheel: it builds the
bodies and needs nothing else of vLLM, which is too large to install for five requests. It does need
aiohttp, regex and tqdm.
"""

import asyncio
import importlib.util
import sys

QUESTION = "Why is the sky blue?"
# A backend of the benchmark, and the path that it wants.
BACKENDS = {
    "chat-stream": ("openai-chat", "chat/completions"),
    "chat-image": ("openai-chat", "chat/completions"),
    "completions-stream": ("openai", "completions"),
    "responses-stream": ("openai-responses", "responses"),
    "embeddings": ("openai-embeddings", "embeddings"),
}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def main(file, version, url):
    spec = importlib.util.spec_from_file_location("endpoint_request_func", file)
    vllm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(vllm)
    async with vllm.aiohttp.ClientSession() as session:
        for what, (backend, path) in BACKENDS.items():
            name = f"vllm-bench-{version}-{what}"
            request = vllm.RequestFuncInput(
                prompt=QUESTION,
                api_url=f"{url}/{name}/v1/{path}",
                prompt_len=5,
                output_len=64,
                model="m",
                ignore_eos=True,
            )
            if what == "chat-image":
                request.multi_modal_content = {"type": "image_url", "image_url": {"url": PIXEL}}
            await vllm.ASYNC_REQUEST_FUNCS[backend](request, session)
            print(f"{name}.json")


asyncio.run(main(*sys.argv[1:]))
