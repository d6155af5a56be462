/** `apply` and `export-config`: this host's services as a file. */
import { OperationError, OptionError } from "../lib/errors.ts";
import { formatYaml, parseYaml } from "../lib/yaml.ts";
import type { Input } from "./command.ts";
import { type APPLY_OPTIONS, noWords, type QUERY_OPTIONS } from "./commands.ts";
import { routerClient } from "./router_client.ts";
import { ask, formOf, goodBody, oneName } from "./service.ts";

const PATH = "/service-config";

export async function apply({ words, values, given, terminal }: Input<typeof APPLY_OPTIONS>): Promise<number> {
  const path = oneName(words);
  const name = path === "-" ? "standard input" : path;
  const file = parseYaml(await readText(path), name);
  const client = await routerClient(given, terminal);
  const config = JSON.stringify(file.value ?? null);
  const form = formOf({ config, "dry-run": values.dryRun, force: values.force });
  const answer = await client.request("POST", PATH, { form, json: true, patient: true });
  const wrong = answer.status === 400 ? readWrong(answer.body) : undefined;
  if (wrong !== undefined) throw new OptionError(`${name}: line ${file.lineOf(wrong.path)}: ${wrong.message}`);
  const body = goodBody(answer);
  if (values.json) terminal.printLine(body.trimEnd());
  else terminal.print((JSON.parse(body) as { readonly text: string }).text);
  return 0;
}

export async function exportConfig({ words, values, given, terminal }: Input<typeof QUERY_OPTIONS>): Promise<number> {
  noWords(words);
  const body = await ask(await routerClient(given, terminal), PATH);
  terminal.print(values.json ? body : formatYaml(JSON.parse(body)));
  return 0;
}

async function readText(path: string): Promise<string> {
  try {
    return path === "-" ? await new Response(Deno.stdin.readable).text() : await Deno.readTextFile(path);
  } catch (error) {
    throw new OperationError(`Cannot read "${path}": ${(error as Error).message}`);
  }
}

/** What is wrong with a value, and where in it. */
function readWrong(body: string): { readonly message: string; readonly path: (string | number)[] } | undefined {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
