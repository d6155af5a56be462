/**
 * This program as a container runtime's plugin: called as `weave-net` or `weave-ipam`, it takes variables and a configuration on standard
 * input instead of a command line, and answers on standard output.
 */
import { ApiAddressBook, type ApiClient } from "../api/client.ts";
import { withEnvironment } from "../config/option.ts";
import { HTTP_ADDR } from "../config/options.ts";
import { VERSION } from "../config/version.ts";
import { NoAnswerError, OperationError, RouterAbsentError } from "../lib/errors.ts";
import { writeJson } from "../lib/json.ts";
import {
  CNI_CODE,
  CNI_VERSIONS,
  type CniCall,
  CniError,
  readCall,
  versionOf,
  writeError,
  writeResult,
  writeVersions,
} from "../plugin/cni.ts";
import type { CniProgram } from "./cni_name.ts";
import { findRouterClient } from "./router_client.ts";
import type { Terminal } from "./terminal.ts";

/** Runtimes give up after a minute or more. */
const LIMIT_MS = 50_000;
const MAX_STDIN_OCTETS = 8 << 20;

/** Answers what was asked, and returns the exit status. */
export async function runCni(program: CniProgram, terminal: Terminal): Promise<number> {
  const env = (name: string) => Deno.env.get(name);
  if (env("CNI_COMMAND") === undefined) {
    terminal.warn(
      `${program} is a CNI plugin of weave ${VERSION}: container runtimes run it. It speaks ${
        CNI_VERSIONS.join(", ")
      }.`,
    );
    return 1;
  }
  let stdin = "";
  try {
    if (env("CNI_COMMAND") !== "VERSION" || !Deno.stdin.isTerminal()) stdin = await readStdin();
    const call = readCall(env, stdin);
    const answer = call.command === "VERSION" ? writeVersions() : await perform(program, call, stdin, terminal);
    if (answer !== undefined) terminal.printLine(writeJson(answer, 4));
    return 0;
  } catch (error) {
    terminal.printLine(writeJson(writeError(asCniError(error), versionOf(stdin)), 4));
    return 1;
  }
}

async function perform(
  program: CniProgram,
  call: Exclude<CniCall, { command: "VERSION" }>,
  stdin: string,
  terminal: Terminal,
) {
  const { cniAddresses, cniNetwork } = await import("../daemon/cni.ts");
  const given = withEnvironment({ httpAddr: HTTP_ADDR }, new Map(), (name) => Deno.env.get(name));
  const client = await findRouterClient(given, { ...terminal, warn() {} });
  const context = {
    call,
    stdin,
    book: new ApiAddressBook(client),
    releaseAll: (id: string) => releaseAll(client, id),
    warn: (line: string) => terminal.warn(line),
  };
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(tooLate()), LIMIT_MS);
  try {
    const work = program === "weave-net" ? cniNetwork(context) : cniAddresses(context);
    const result = await Promise.race([work, late.promise]);
    return result === undefined ? undefined : writeResult(result, call.config.version);
  } finally {
    clearTimeout(timer);
  }
}

async function releaseAll(client: ApiClient | undefined, id: string): Promise<void> {
  if (client === undefined) throw new RouterAbsentError();
  const { status, body } = await client.request("DELETE", `/ip/${encodeURIComponent(id)}`);
  // It allocates none, or holds none for that id.
  if (status < 300 || status === 404 || body.includes("no addresses for")) return;
  throw new OperationError(`unable to release IP address: ${body.trim()}`);
}

async function readStdin(): Promise<string> {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let total = 0;
  for await (const piece of Deno.stdin.readable) {
    total += piece.length;
    if (total > MAX_STDIN_OCTETS) throw new CniError(CNI_CODE.io, "the configuration does not end");
    pieces.push(piece);
  }
  return await new Blob(pieces).text();
}

function tooLate(): CniError {
  return new CniError(
    CNI_CODE.tryAgain,
    `the router has given no address within ${LIMIT_MS / 1000} s`,
    "'weave status ipam' says what it waits for",
  );
}

function asCniError(error: unknown): CniError {
  if (error instanceof CniError) return error;
  const { message } = error as Error;
  const later = error instanceof RouterAbsentError || error instanceof NoAnswerError;
  return new CniError(later ? CNI_CODE.tryAgain : CNI_CODE.failed, message);
}
