// The JavaScript half of record.py: `node record.mjs URL` against its recorder, in a directory with
// the packages that recorded/README.md lists.
//
// The official packages send an object's keys as the caller wrote them, whatever their own order
// is: here in the order of their own README files.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [, , url] = process.argv;
// Packages are looked for where this was started, not where this file is.
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const version = (name) =>
  JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;

const model = "m";
const systemText = "Answer in one sentence.";
const question = "Why is the sky blue?";
const pixel =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const parameters = {
  type: "object",
  properties: { city: { type: "string", description: "Where" } },
  required: ["city"],
};
const tool = { name: "weather", description: "Today's weather <now>", parameters };
const system = { role: "system", content: systemText };
const user = { role: "user", content: question };
const shown = {
  role: "user",
  content: [
    { type: "text", text: question },
    { type: "image_url", image_url: { url: `data:image/png;base64,${pixel}` } },
  ],
};

/** Sends a client's requests, whose responses are the recorder's refusals. */
async function record(client, name, requests) {
  for (const [what, request] of Object.entries(requests)) {
    const file = `${client}-${version(name)}-${what}`;
    try {
      await request(`${url}/${file}`);
    } catch (error) {
      if (error.status !== 400) throw error;
    }
    console.log(`${file}.json`);
  }
}

const apiKey = "none";
const { OpenAI } = await load("openai");
const openai = (call) => (base) => call(new OpenAI({ baseURL: `${base}/v1`, apiKey }));
const chat = (fields) => openai((api) => api.chat.completions.create(fields));
await record("openai-js", "openai", {
  chat: chat({ model, messages: [user] }),
  "chat-stream": chat({ model, messages: [user], stream: true }),
  "chat-helper": openai((api) => api.chat.completions.stream({ model, messages: [user] }).done()),
  "chat-system": chat({ model, messages: [system, user] }),
  "chat-tools": chat({ model, messages: [user], tools: [{ type: "function", function: tool }] }),
  "chat-image": chat({ model, messages: [shown] }),
  completions: openai((api) => api.completions.create({ model, prompt: question })),
  embeddings: openai((api) => api.embeddings.create({ model, input: [question] })),
  responses: openai((api) =>
    api.responses.create({ model, instructions: systemText, input: question })),
  "responses-stream": openai((api) =>
    api.responses.create({ model, input: question, stream: true })),
});

const { Anthropic } = await load("@anthropic-ai/sdk");
const anthropic = (call) => (base) => call(new Anthropic({ baseURL: base, apiKey }));
const messages = (fields) => anthropic((api) => api.messages.create(fields));
const max_tokens = 64;
const source = { type: "base64", media_type: "image/png", data: pixel };
const seen = { role: "user", content: [{ type: "text", text: question }, { type: "image", source }] };
const described = { name: "weather", description: tool.description, input_schema: parameters };
await record("anthropic-js", "@anthropic-ai/sdk", {
  messages: messages({ max_tokens, messages: [user], model }),
  "messages-stream": messages({ max_tokens, messages: [user], model, stream: true }),
  "messages-helper": anthropic((api) =>
    api.messages.stream({ model, max_tokens, messages: [user] }).done()),
  "messages-system": messages({ max_tokens, messages: [user], model, system: systemText }),
  "messages-tools": messages({
    max_tokens, messages: [user], model, system: systemText, tools: [described],
  }),
  "messages-image": messages({ max_tokens, messages: [seen], model }),
});

const { HumanMessage, SystemMessage } = await load("@langchain/core/messages");
const turns = [new SystemMessage(systemText), new HumanMessage(question)];
const drain = async (stream) => {
  for await (const _ of await stream);
};
const { ChatOpenAI, OpenAIEmbeddings } = await load("@langchain/openai");
const common = { model, apiKey, maxRetries: 0 };
const langchain = (call, fields) => (base) =>
  call(new ChatOpenAI({ ...common, configuration: { baseURL: `${base}/v1` }, ...fields }));
await record("langchain-openai-js", "@langchain/openai", {
  chat: langchain((chat) => chat.invoke(turns)),
  "chat-stream": langchain((chat) => drain(chat.stream(turns))),
  "chat-tools": langchain((chat) =>
    chat.bindTools([{ type: "function", function: tool }]).invoke(turns)),
  "chat-image": langchain((chat) => chat.invoke([new HumanMessage({ content: shown.content })])),
  responses: langchain((chat) => chat.invoke(turns), { useResponsesApi: true }),
  embeddings: (base) =>
    new OpenAIEmbeddings({ ...common, configuration: { baseURL: `${base}/v1` } })
      .embedDocuments([question]),
});

const { ChatAnthropic } = await load("@langchain/anthropic");
const claude = (call) => (base) =>
  call(new ChatAnthropic({ ...common, anthropicApiUrl: base, maxTokens: max_tokens }));
await record("langchain-anthropic-js", "@langchain/anthropic", {
  messages: claude((chat) => chat.invoke([user])),
  "messages-stream": claude((chat) => drain(chat.stream(turns))),
  "messages-system": claude((chat) => chat.invoke(turns)),
  "messages-tools": claude((chat) => chat.bindTools([described]).invoke(turns)),
});
