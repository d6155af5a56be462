/** DNS on emulated hosts: asking with dig, and a resolver upstream. */

import type { RunningCommand } from "./command.ts";
import type { Container, EmulatedHost } from "./host.ts";
import { waitFor } from "./wait.ts";

/** What dig says of one answer. */
export interface Dug {
  readonly status: string;
  /** `qr aa rd ra`, say. */
  readonly flags: readonly string[];
  /** The data of each answer, in their order. */
  readonly answers: readonly string[];
  readonly size: number;
}

/** Asks once. @param server address, or address#port */
export async function dig(
  from: EmulatedHost | Container,
  server: string,
  ...question: string[]
): Promise<Dug> {
  const [address, port = "53"] = server.split("#");
  const result = await from.attempt(
    ["dig", `@${address}`, "-p", port, "+tries=1", "+time=8", "+nocookie", ...question],
    { timeoutMs: 20_000 },
  );
  const text = result.stdout;
  const [, answers = ""] = /;; ANSWER SECTION:\n([^]*?)\n\n/.exec(`${text}\n`) ?? [];
  return {
    status: /status: (\w+)/.exec(text)?.[1] ?? `none: ${text.split("\n").at(-2) ?? ""}`,
    flags: /;; flags: ([^;]*);/.exec(text)?.[1]?.trim().split(" ") ?? [],
    answers: answers.split("\n").filter((line) => line !== "").map((line) => line.split(/\s+/).slice(4).join(" ")),
    size: Number(/MSG SIZE\s+rcvd: (\d+)/.exec(text)?.[1]),
  };
}

/** Waits until a name has these addresses, in any order; none: until there is no such name. */
export async function waitName(
  from: EmulatedHost | Container,
  server: string,
  name: string,
  addresses: readonly string[],
  deadlineMs = 10_000,
  witnesses: readonly EmulatedHost[] = [],
): Promise<void> {
  const wanted = addresses.length === 0 ? "NXDOMAIN" : [...addresses].sort().join();
  await waitFor(
    `${name} to be ${wanted}`,
    async () => {
      const { status, answers } = await dig(from, server, "-q", name, "-t", "A");
      const got = status === "NOERROR" ? [...answers].sort().join() : status;
      if (got !== wanted) throw new Error(`it is ${got}`);
      return true;
    },
    deadlineMs,
    witnesses,
  );
}

/** Starts dnsmasq on a host, for these lines of configuration; it is the host's business to end it. */
export async function startResolver(
  host: EmulatedHost,
  address: string,
  lines: readonly string[],
): Promise<RunningCommand> {
  const path = `/run/dnsmasq-${address}.conf`;
  const config = [
    "no-resolv",
    "no-hosts",
    "user=root",
    "bind-interfaces",
    `listen-address=${address}`,
    "log-queries",
    ...lines,
  ];
  await host.exec(["sh", "-c", `cat > ${path}`], { input: config.join("\n") + "\n" });
  const running = host.spawn([
    "dnsmasq",
    "--no-daemon",
    `--pid-file=/run/dnsmasq-${address}.pid`,
    `--conf-file=${path}`,
  ]);
  await waitFor(
    "the resolver",
    async () => (await host.attempt(["ss", "-Huln", "sport = :53"])).stdout.includes(address),
    5_000,
  );
  return running;
}

/** Says whom a host asks. */
export async function setResolvers(host: EmulatedHost, ...addresses: string[]): Promise<void> {
  const text = addresses.map((address) => `nameserver ${address}\n`).join("");
  await host.exec(["sh", "-c", "cat > /etc/resolv.conf.new; mv /etc/resolv.conf.new /etc/resolv.conf"], {
    input: text,
  });
}
