// Drives the official Node SDK against the gateway named by BASE_URL and API_KEY, and prints what it saw as JSON.
import OpenAI from "openai";

const { BASE_URL: baseURL, API_KEY: apiKey, MODEL: model } = process.env;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];

async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code };
  }
  return null;
}

async function streamed(headers = {}, max_tokens = 6) {
  const stream = await client.chat.completions.create(
    { model, messages, max_tokens, ignore_eos: true, stream: true, stream_options: { include_usage: true } },
    { headers },
  );
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const whole = await client.chat.completions.create({ model, messages, max_tokens: 6, ignore_eos: true });
const chunks = await streamed();
const events = [];
for await (const event of await client.responses.create({ model, input: "Hello", max_output_tokens: 6, stream: true })) {
  events.push(event.type);
}
const embeddings = await client.embeddings.create({ model, input: ["one", "two"] });
const models = [];
for await (const entry of client.models.list()) models.push(entry.id);

console.log(
  JSON.stringify({
    whole: { text: whole.choices[0].message.content, usage: whole.usage },
    stream: {
      text: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
      usage: chunks.at(-1).usage,
    },
    events,
    embeddings: embeddings.data.length,
    models,
    wrongKey: await errorOf(new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).models.list()),
    wrongModel: await errorOf(client.chat.completions.create({ model: "gpt-0", messages })),
    // Every node cuts every leg of it, so that going on elsewhere does not help for ever.
    cut: await errorOf(streamed({ "x-simulate-fault": "cut=2" }, 40)),
  }),
);
