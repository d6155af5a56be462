import assert from "node:assert/strict";
import { JsonLines, readLog } from "./logs.ts";

Deno.test("readLog() shows a log to its end", async () => {
  await using log = await Log.make("one\ntwo\n");
  let shown = "";
  await readLog(log.path, { follow: false, take: (octets) => shown += new TextDecoder().decode(octets) });
  assert.equal(shown, "one\ntwo\n");
});

Deno.test("readLog() says so where there is no log", async () => {
  const read = readLog("/no/such/weave.log", { follow: false, take() {} });
  await assert.rejects(read, /There is no log at \/no\/such\/weave\.log: weave was never launched/);
});

Deno.test("readLog() follows what is added, through cutting and replacing", async () => {
  await using log = await Log.make("one\n");
  let shown = "";
  const stop = new Error("enough");
  const following = readLog(log.path, {
    follow: true,
    take(octets) {
      shown += new TextDecoder().decode(octets);
      if (shown.endsWith("end\n")) throw stop;
    },
  });
  const rejected = assert.rejects(following, stop);
  await waitFor(() => shown === "one\n");
  await Deno.writeTextFile(log.path, "two\n", { append: true });
  await waitFor(() => shown === "one\ntwo\n");
  await Deno.writeTextFile(log.path, "cut\n");
  await waitFor(() => shown === "one\ntwo\ncut\n");
  await Deno.rename(log.path, `${log.path}.1`);
  await Deno.writeTextFile(log.path, "next, and longer than before\nend\n");
  await rejected;
  assert.equal(shown, "one\ntwo\ncut\nnext, and longer than before\nend\n");
});

Deno.test("JsonLines makes an object of each line, however they are cut", () => {
  const printed: string[] = [];
  const lines = new JsonLines({ print() {}, printLine: (line) => printed.push(line), warn() {} });
  const log = 'INFO: 2026/11/24 10:49:00.123456 ready name=grün\n{"level":"warn"}\nKilled\nleft';
  const octets = new TextEncoder().encode(log);
  for (const octet of octets) lines.take(Uint8Array.of(octet));
  lines.end();
  assert.deepEqual(printed.map((line) => JSON.parse(line)), [
    { time: "2026-11-24T10:49:00.123456Z", level: "INFO", message: "ready name=grün" },
    { level: "warn" },
    { message: "Killed" },
    { message: "left" },
  ]);
});

class Log implements AsyncDisposable {
  private constructor(readonly folder: string) {}

  get path(): string {
    return `${this.folder}/weave.log`;
  }

  static async make(text: string): Promise<Log> {
    const log = new Log(await Deno.makeTempDir({ prefix: "weave-log-" }));
    await Deno.writeTextFile(log.path, text);
    return log;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function waitFor(condition: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 5_000; !condition();) {
    if (performance.now() > deadline) throw new Error(`Waited in vain for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
