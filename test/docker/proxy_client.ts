/** Docker's clients that talk to the engine through the proxy. */

import type { CommandResult, RunningCommand } from "../netns/command.ts";
import { delay } from "../netns/wait.ts";
import type { DockerEngine } from "./engine.ts";

export const PROXY_PATH = "/var/run/weave/weave.sock";
export const PROXY = `unix://${PROXY_PATH}`;

/** Runs `docker …` through the proxy and returns what it prints. */
export function proxied(engine: DockerEngine, ...args: string[]): Promise<string> {
  return engine.docker("-H", PROXY, ...args);
}

/** Runs `docker …` through the proxy, whatever its exit status. */
export function attemptProxied(engine: DockerEngine, ...args: string[]): Promise<CommandResult> {
  return attemptDocker(engine, "-H", PROXY, ...args);
}

export function attemptDocker(engine: DockerEngine, ...args: string[]): Promise<CommandResult> {
  return engine.host.attempt(["docker", ...args], { env: engine.env, timeoutMs: 90_000 });
}

export function spawnProxied(engine: DockerEngine, ...args: string[]): RunningCommand {
  return engine.host.spawn(["docker", "-H", PROXY, ...args], { env: engine.env });
}

export interface ApiAnswer {
  readonly status: number;
  readonly body: string;
}

/** One call of Docker's API by hand, at a socket of the host. */
export async function call(
  engine: DockerEngine,
  method: string,
  path: string,
  { body, socket = PROXY_PATH }: { readonly body?: string; readonly socket?: string } = {},
): Promise<ApiAnswer> {
  const content = body === undefined ? [] : ["-H", "Content-Type: application/json", "--data-binary", body];
  const { stdout } = await engine.host.exec(
    ["curl", "-s", "-w", "\n%{http_code}", "--unix-socket", socket, "-X", method, ...content, `http://docker${path}`],
    { timeoutMs: 90_000 },
  );
  const at = stdout.lastIndexOf("\n");
  return { status: Number(stdout.slice(at + 1)), body: stdout.slice(0, at) };
}

/** An image of busybox under another name, with what its configuration shall say, as `docker import --change` takes it. */
export async function makeImage(engine: DockerEngine, name: string, ...changes: string[]): Promise<void> {
  const options = changes.map((change) => `--change '${change}'`).join(" ");
  await engine.host.sh(`tar -C /run/image -c . | docker import ${options} - ${name}`, { env: engine.env });
}

/** How many descriptors the router has, once it has as many for a while. */
export async function descriptors(engine: DockerEngine, pid: number): Promise<number> {
  const count = async () => Number(await engine.host.sh(`ls /proc/${pid}/fd | wc -l`));
  let last = await count();
  for (let same = 0, tries = 0; same < 4 && tries < 100; tries++) {
    await delay(100);
    const now = await count();
    same = now === last ? same + 1 : 0;
    last = now;
  }
  return last;
}
