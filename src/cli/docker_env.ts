/** `env` and `config`: how Docker's clients find the proxy. */
import { OperationError, RouterAbsentError } from "../lib/errors.ts";
import type { Input } from "./command.ts";
import { type ENV_OPTIONS, noWords, type TELL_OPTIONS } from "./commands.ts";
import { routerClient } from "./router_client.ts";
import type { Terminal } from "./terminal.ts";

/** For a shell's `eval`. Nothing where there is no proxy: then nothing is changed. */
export async function env({ words, values, given, terminal }: Input<typeof ENV_OPTIONS>): Promise<number> {
  noWords(words);
  if (values.restore) return restore(terminal);
  const address = await proxyAddress({ given, terminal });
  if (address === undefined) return 1;
  const now = Deno.env.get("DOCKER_HOST") ?? "";
  const before = now === address ? "" : ` ORIG_DOCKER_HOST=${quoted(now)}`;
  terminal.printLine(`export DOCKER_HOST=${quoted(address)}${before}`);
  return 0;
}

function restore(terminal: Terminal): number {
  const before = Deno.env.get("ORIG_DOCKER_HOST");
  if (before === undefined) {
    throw new OperationError(
      "Nothing to restore: there is no ORIG_DOCKER_HOST, so this shell was not told of the proxy",
    );
  }
  terminal.printLine(`DOCKER_HOST=${quoted(before)}`);
  return 0;
}

/** For `docker $(weave config) …`. */
export async function config({ words, given, terminal }: Input<typeof TELL_OPTIONS>): Promise<number> {
  noWords(words);
  const address = await proxyAddress({ given, terminal });
  if (address === undefined) return 1;
  terminal.printLine(`-H=${address}`);
  return 0;
}

const NOT_FOUND = 404;

/** The first that it listens at, as a program on this host or its user can reach it; undefined: it is not there, which is said. */
async function proxyAddress({ given, terminal }: Pick<Input, "given" | "terminal">): Promise<string | undefined> {
  try {
    const { status, body } = await (await routerClient(given, terminal)).request("GET", "/proxyaddrs");
    const first = status === NOT_FOUND ? undefined : body.split("\n").find((line) => line !== "");
    if (first === undefined) terminal.warn("The router runs without its Docker proxy: --proxy=false");
    return first?.replace("0.0.0.0", proxyHost());
  } catch (error) {
    // Nobody changes his environment for a router that is not there.
    if (error instanceof RouterAbsentError) throw new RouterAbsentError(1, { cause: error });
    throw error;
  }
}

function proxyHost(): string {
  const host = Deno.env.get("PROXY_HOST");
  if (host) return host;
  return /^(?:tcp|https?):\/\/([^/:]+|\[[^\]]+\])/.exec(Deno.env.get("DOCKER_HOST") ?? "")?.[1] ?? "127.0.0.1";
}

/** As a shell reads it back. */
function quoted(text: string): string {
  return /^[\w@%+=:,./-]*$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
