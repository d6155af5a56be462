/**
 * Tests of files that change the machine: they run in a second process of `deno test`, in network and mount namespaces of its own
 * with an empty /run, so that nothing they do is seen outside and nothing is left behind.
 */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { testUnless } from "./skip.ts";

const MARK = "WEAVE_TEST_OWN_NAMESPACE";

/** There nothing can be fetched: which packages it takes is not asked anew. */
const LOCKED = ["--lock=deno.lock", "--frozen"];

/** Registers the tests of `register` in namespaces of their own. @param url `import.meta.url` of the test file */
export function inOwnNamespace(url: string, register: () => void): void {
  if (Deno.env.get(MARK) === url) return register();
  const path = fileURLToPath(url);
  const reason = Deno.uid() === 0 ? undefined : "needs root";
  testUnless(reason, `in a network namespace of its own: ${path.split("/").at(-1)}`, async () => {
    const script = 'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"';
    const { code, stdout, stderr } = await new Deno.Command("unshare", {
      args: ["--net", "--mount", "--propagation", "private", "sh", "-c", script, "sh", Deno.execPath()]
        .concat(["test", "--allow-all", "--no-prompt", "--no-check", ...LOCKED, path]),
      cwd: dirname(import.meta.dirname!),
      env: { [MARK]: url, NO_COLOR: "1" },
    }).output();
    const decoder = new TextDecoder();
    if (code !== 0) throw new Error(`${decoder.decode(stdout)}\n${decoder.decode(stderr)}`);
  });
}
