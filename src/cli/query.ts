/** Commands that ask the router, or tell it something, through its API and nothing else: they work for any user. */
import type { Input } from "./command.ts";
import {
  type CONNECT_OPTIONS,
  noWords,
  type QUERY_OPTIONS,
  type REPORT_OPTIONS,
  STATUS_TOPICS,
  type TELL_OPTIONS,
} from "./commands.ts";
import { UsageError } from "./parse.ts";
import { VERSION } from "../config/version.ts";
import { OperationError, RouterAbsentError } from "../lib/errors.ts";
import { routerClient } from "./router_client.ts";

export async function status({ words, values, given, terminal }: Input<typeof QUERY_OPTIONS>): Promise<number> {
  const [topic, more] = words;
  if (topic !== undefined && !STATUS_TOPICS.some((known) => known === topic)) {
    throw new UsageError(`Invalid 'weave status' sub-command: ${topic}`);
  }
  if (more !== undefined) throw new UsageError(`Unexpected argument "${more}"`);
  const client = await routerClient(given, terminal);
  const path = topic === undefined ? "/status" : `/status/${topic}`;
  const answer = await client.request("GET", path, { json: values.json }).catch(failsWith(1));
  // Starting up: what is known so far is in the body.
  if (answer.status !== 200) throw new OperationError(answer.body.trimEnd() || `The router answered ${answer.status}`);
  const framed = topic === undefined && !values.json;
  const body = answer.body === "" || answer.body.endsWith("\n") ? answer.body : `${answer.body}\n`;
  terminal.print(framed ? `\n${body}\n` : body);
  return 0;
}

export async function report({ words, values, given, terminal }: Input<typeof REPORT_OPTIONS>): Promise<number> {
  noWords(words);
  if (given.get("format")?.length === 2) throw new UsageError("One template expected");
  const body = await (await routerClient(given, terminal)).report(values.format);
  // What a template says is the template's business, its last line end too.
  terminal.print(values.format !== undefined || body.endsWith("\n") ? body : `${body}\n`);
  return 0;
}

export async function connect({ words, values, given, terminal }: Input<typeof CONNECT_OPTIONS>): Promise<number> {
  if (words.length === 0 && !values.replace) throw new UsageError("");
  await (await routerClient(given, terminal)).connect(words, { replace: values.replace });
  return 0;
}

export async function forget({ words, given, terminal }: Input<typeof TELL_OPTIONS>): Promise<number> {
  if (words.length === 0) throw new UsageError("");
  await (await routerClient(given, terminal)).forget(words);
  return 0;
}

/** Waits as long as it takes. */
export async function prime({ words, given, terminal }: Input<typeof QUERY_OPTIONS>): Promise<number> {
  noWords(words);
  await (await routerClient(given, terminal)).ask("GET", "/ring");
  return 0;
}

export async function rmpeer({ words, values, given, terminal }: Input<typeof QUERY_OPTIONS>): Promise<number> {
  if (words.length === 0) throw new UsageError("");
  const client = await routerClient(given, terminal);
  let failed = false;
  const said: { peer: string; said: string }[] = [];
  for (const peer of words) {
    try {
      const text = await client.removePeer(peer);
      if (values.json) said.push({ peer, said: text.trimEnd() });
      else terminal.print(text);
    } catch (error) {
      if (error instanceof RouterAbsentError) failsWith(1)(error);
      terminal.warn((error as Error).message);
      failed = true;
    }
  }
  if (values.json) terminal.printLine(JSON.stringify(said));
  return failed ? 1 : 0;
}

/** Two lines, as Weave Net prints them: of this program, and of the router, which may be an older one. */
export async function version({ words, values, given, terminal }: Input<typeof QUERY_OPTIONS>): Promise<number> {
  noWords(words);
  const running = await runningVersion(given, terminal);
  if (values.json) terminal.printLine(JSON.stringify({ script: VERSION, router: running ?? null }));
  else terminal.print(`weave script ${VERSION}\nweave ${running ?? VERSION}\n`);
  return 0;
}

async function runningVersion(given: Input["given"], terminal: Input["terminal"]): Promise<string | undefined> {
  try {
    return await (await routerClient(given, terminal)).report("{{.Version}}");
  } catch (error) {
    if (!(error instanceof OperationError)) throw error;
    if (!(error instanceof RouterAbsentError)) terminal.warn(error.message);
    return undefined;
  }
}

/** These commands exit with another status than the others where there is no router. */
function failsWith(exitStatus: number): (error: unknown) => never {
  return (error) => {
    if (error instanceof RouterAbsentError) throw new RouterAbsentError(exitStatus, { cause: error });
    throw error;
  };
}
