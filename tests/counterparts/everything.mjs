// A conformance server with the official TypeScript SDK (v1: sessions), as its users write one. What it asks of its client and
// what it logs goes out on the stream of a GET, since that is where the SDK sends what is not said to belong to a request.
// `everything.mjs` prints `ready URL` and serves until it is killed.
import { randomUUID } from "node:crypto";
import http from "node:http";
import { McpServer, ResourceTemplate } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { CompleteRequestSchema, isInitializeRequest, SetLevelRequestSchema, SubscribeRequestSchema, UnsubscribeRequestSchema }
  from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
const WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=";
const text = (said) => ({ type: "text", text: said });
const embedded = { type: "resource", resource: { uri: "test://embedded-resource", mimeType: "text/plain", text: "embedded" } };
const image = { type: "image", data: PNG, mimeType: "image/png" };
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function build() {
  const server = new McpServer({ name: "typescript", version: "1.0.0" }, {
    capabilities: { logging: {}, completions: {}, tools: { listChanged: true }, resources: { subscribe: true, listChanged: true },
                    prompts: { listChanged: true } },
  });
  const tool = (name, description, run, inputSchema) =>
    server.registerTool(name, { description, ...(inputSchema ? { inputSchema } : {}) }, run);
  const content = (...parts) => async () => ({ content: parts });

  tool("test_simple_text", "text", content(text("This is a simple text response for testing.")));
  tool("test_image_content", "an image", content(image));
  tool("test_audio_content", "a sound", content({ type: "audio", data: WAV, mimeType: "audio/wav" }));
  tool("test_embedded_resource", "a resource", content(embedded));
  tool("test_multiple_content_types", "all of them", content(text("Multiple content types test:"), image, embedded));
  tool("test_error_handling", "fails", async () => { throw new Error("This tool intentionally returns an error for testing"); });
  tool("test_tool_with_logging", "logs on the server's own stream", async () => {
    for (const data of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
      await server.server.sendLoggingMessage({ level: "info", data });
      await pause(50);
    }
    return { content: [text("Tool with logging executed successfully")] };
  });
  tool("test_tool_with_progress", "tells how far it is", async (extra) => {
    const progressToken = extra._meta?.progressToken;
    for (const progress of progressToken === undefined ? [] : [0, 50, 100]) {
      await extra.sendNotification({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
      await pause(50);
    }
    return { content: [text(String(progressToken))] };
  });
  tool("test_sampling", "asks on the server's own stream", async ({ prompt }) => {
    const said = await sample(prompt);
    return { content: [text(`LLM response: ${said.content.text}`)] };
  }, { prompt: z.string() });
  const elicit = (message, properties, required = []) =>
    server.server.elicitInput({ message, requestedSchema: { type: "object", properties, required } });
  const sample = (prompt) => server.server.createMessage({ messages: [{ role: "user", content: text(prompt) }], maxTokens: 100 });
  const asked = async (...question) => {
    const said = await elicit(...question);
    return { content: [text(`User response: action=${said.action}, content=${JSON.stringify(said.content ?? {})}`)] };
  };
  tool("test_elicitation", "asks on the server's own stream", ({ message }) =>
    asked(message, { username: { type: "string", description: "User's response" },
                     email: { type: "string", description: "User's email address" } }, ["username", "email"]),
    { message: z.string() });
  tool("test_elicitation_sep1034_defaults", "asks with defaults", () => asked("Please review", {
    name: { type: "string", default: "John Doe" }, age: { type: "integer", default: 30 }, score: { type: "number", default: 95.5 },
    status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
    verified: { type: "boolean", default: true },
  }));
  const titled = ["value1", "value2", "value3"].map((value) => ({ const: value, title: `The ${value}` }));
  const options = ["option1", "option2", "option3"];
  tool("test_elicitation_sep1330_enums", "asks for choices", () => asked("Please choose", {
    untitledSingle: { type: "string", enum: options }, titledSingle: { type: "string", oneOf: titled },
    legacyEnum: { type: "string", enum: ["opt1", "opt2", "opt3"], enumNames: ["Option One", "Option Two", "Option Three"] },
    untitledMulti: { type: "array", items: { type: "string", enum: options } },
    titledMulti: { type: "array", items: { anyOf: titled } },
  }));
  const name = () => elicit("What is your name?", { name: { type: "string" } }, ["name"]);
  const confirm = () => elicit("Please confirm", { ok: { type: "boolean" } }, ["ok"]);
  const after = (...questions) => async () => {
    for (const question of questions) await question();
    return { content: [text("state-ok")] };
  };
  tool("test_input_required_result_elicitation", "greets", async () =>
    ({ content: [text(`Hello, ${(await name()).content?.name ?? "nobody"}!`)] }));
  tool("test_input_required_result_sampling", "asks a model", async () =>
    ({ content: [text(JSON.stringify((await sample("What is the capital of France?")).content))] }));
  tool("test_input_required_result_list_roots", "asks for roots", async () =>
    ({ content: [text((await server.server.listRoots()).roots.map((root) => root.uri).join(", "))] }));
  tool("test_input_required_result_request_state", "asks", after(confirm));
  tool("test_input_required_result_tampered_state", "asks", after(confirm));
  tool("test_input_required_result_multi_round", "asks twice", after(name, confirm));
  tool("test_input_required_result_multiple_inputs", "asks all at once", async () => {
    await Promise.all([name(), sample("Greet them"), server.server.listRoots()]);
    return { content: [text("all-ok")] };
  });

  server.registerPrompt("test_simple_prompt", { description: "simple" }, async () =>
    ({ messages: [{ role: "user", content: text("This is a simple prompt for testing.") }] }));
  server.registerPrompt("test_prompt_with_arguments", { description: "arguments", argsSchema: { arg1: z.string(), arg2: z.string() } },
    async ({ arg1, arg2 }) =>
      ({ messages: [{ role: "user", content: text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`) }] }));
  server.registerPrompt("test_prompt_with_embedded_resource", { description: "a resource", argsSchema: { resourceUri: z.string() } },
    async ({ resourceUri }) => ({ messages: [
      { role: "user", content: { type: "resource", resource: { ...embedded.resource, uri: resourceUri } } },
      { role: "user", content: text("Please process the embedded resource above.") },
    ] }));
  server.registerPrompt("test_prompt_with_image", { description: "an image" }, async () => ({ messages: [
    { role: "user", content: image }, { role: "user", content: text("Please analyze the image above.") },
  ] }));

  const resource = (name, uri, mimeType, rest) => server.registerResource(name, uri, { mimeType }, async (at) =>
    ({ contents: [{ uri: at.href, mimeType, ...rest }] }));
  resource("static text", "test://static-text", "text/plain", { text: "This is the content of the static text resource." });
  resource("static binary", "test://static-binary", "image/png", { blob: PNG });
  resource("watched", "test://watched-resource", "text/plain", { text: "Watched resource content" });
  server.registerResource("template", new ResourceTemplate("test://template/{id}/data", { list: undefined }),
    { mimeType: "application/json" }, async (at, { id }) => ({ contents: [{ uri: at.href, mimeType: "application/json",
      text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }) }] }));

  server.server.setRequestHandler(SubscribeRequestSchema, async () => ({}));
  server.server.setRequestHandler(UnsubscribeRequestSchema, async () => ({}));
  server.server.setRequestHandler(SetLevelRequestSchema, async () => ({}));
  server.server.setRequestHandler(CompleteRequestSchema, async () => ({ completion: { values: [], total: 0, hasMore: false } }));
  return server;
}

const sessions = new Map();

async function answer(request, response) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = parts.length ? JSON.parse(Buffer.concat(parts)) : undefined;
  let transport = sessions.get(request.headers["mcp-session-id"]);
  if (!transport && body && isInitializeRequest(body)) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => { sessions.set(id, transport); },
    });
    transport.onclose = () => sessions.delete(transport.sessionId);
    await build().connect(transport);
  }
  if (!transport) {
    response.writeHead(request.headers["mcp-session-id"] ? 404 : 400).end();
    return;
  }
  await transport.handleRequest(request, response, body);
}

const server = http.createServer((request, response) => {
  const host = (request.headers.host ?? "").replace(/:\d+$/, "");
  const origin = request.headers.origin ? new URL(request.headers.origin).hostname : "127.0.0.1";
  if (![host, origin].every((one) => ["127.0.0.1", "localhost"].includes(one))) {
    response.writeHead(403).end();
    return;
  }
  answer(request, response).catch(() => { if (!response.headersSent) response.writeHead(500).end(); });
});
server.listen(0, "127.0.0.1", () => console.log(`ready http://127.0.0.1:${server.address().port}/mcp`));
