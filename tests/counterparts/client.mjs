// The official TypeScript clients against a URL: `node client.mjs (v1|legacy|auto|modern) URL`. Prints one JSON document.
// v1: the package `sdk`; the others: the package `client` in that mode of version negotiation.
const [generation, url] = process.argv.slice(2);
const { Client, StreamableHTTPClientTransport } =
  generation === "v1"
    ? {
        ...(await import("@modelcontextprotocol/sdk/client/index.js")),
        ...(await import("@modelcontextprotocol/sdk/client/streamableHttp.js")),
      }
    : await import("@modelcontextprotocol/client");
const mode = generation === "modern" ? { pin: "2026-07-28" } : generation;
const client = new Client(
  { name: "e2e", version: "1.0.0" },
  generation === "v1" ? undefined : { versionNegotiation: { mode } },
);
const transport = new StreamableHTTPClientTransport(new URL(url));
await client.connect(transport);
const out = { version: client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion };
out.tools = (await client.listTools()).tools.map((tool) => tool.name);
out.prompts = (await client.listPrompts()).prompts.map((prompt) => prompt.name);
out.resources = (await client.listResources()).resources.map((resource) => resource.uri);
out.templates = (await client.listResourceTemplates()).resourceTemplates.map((template) => template.uriTemplate);
out.sum = (await client.callTool({ name: "everything__get-sum", arguments: { a: 2, b: 40 } })).content[0].text;
out.structured = (
  await client.callTool({ name: "everything__get-structured-content", arguments: { location: "Chicago" } })
).structuredContent;
out.time = (await client.callTool({ name: "time__get_current_time", arguments: { timezone: "UTC" } })).content[0].text;
out.prompt = (
  await client.getPrompt({ name: "everything__args-prompt", arguments: { city: "Oslo" } })
).messages[0].content.text;
out.resource = (await client.readResource({ uri: "demo://resource/dynamic/text/1" })).contents[0].text;
out.completion = (
  await client.complete({
    ref: { type: "ref/prompt", name: "everything__completable-prompt" },
    argument: { name: "department", value: "E" },
  })
).completion.values;
try {
  out.unknown = (await client.callTool({ name: "everything__nope", arguments: {} })).isError;
} catch (error) {
  out.unknown = error.code;
}
if (transport.sessionId) await transport.terminateSession();
await client.close();
console.log(JSON.stringify(out));
