import assert from "node:assert/strict";

Deno.test("keepDescriptors() keeps what came from a parent from children", async () => {
  // Bash has numbers of two digits, and gives them to whoever it starts.
  const program = `
    import { keepDescriptors } from ${JSON.stringify(new URL("./inheritance.ts", import.meta.url).href)};
    const list = () => new TextDecoder().decode(new Deno.Command("ls", { args: ["/proc/self/fd"] }).outputSync().stdout);
    const before = list();
    keepDescriptors();
    console.log(JSON.stringify([before, list()].map((text) => text.trim().split("\\n"))));`;
  const { stdout, success } = await new Deno.Command("bash", {
    args: ["-c", 'exec 4</dev/null 200</dev/null; exec "$@"', "bash", Deno.execPath(), "eval", "--no-check", program],
  }).output();
  assert.ok(success);
  const [before, after] = JSON.parse(new TextDecoder().decode(stdout)) as string[][];
  assert.ok(before!.includes("4") && before!.includes("200"), `${before}`);
  assert.deepEqual(after, ["0", "1", "2", "3"], "and 3 is the directory that ls reads");
});
