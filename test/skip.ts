/** Tests that need what a machine may lack. The runner finds the reason where Deno's report has room for it: in the name. */

const MARK = " [skipped: ";

/** Registers a test that runs unless there is a reason not to. */
export function testUnless(
  reason: string | undefined,
  name: string,
  body: (t: Deno.TestContext) => void | Promise<void>,
) {
  if (reason === undefined) Deno.test(name, (t) => firstFailure(() => body(t)));
  else Deno.test({ name: `${name}${MARK}${reason}]`, ignore: true, fn: body });
}

/** Where cleaning up fails after a failure, Deno would show neither: what failed first is the test's, the other is printed. */
async function firstFailure(body: () => void | Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    let first = error;
    while (first instanceof SuppressedError) {
      console.error("Then cleaning up failed:", first.error);
      first = first.suppressed;
    }
    throw first;
  }
}

/** A test that makes namespaces, which only root may. */
export function testAsRoot(name: string, body: (t: Deno.TestContext) => void | Promise<void>): void {
  testUnless(Deno.uid() === 0 ? undefined : "it needs root", name, body);
}

/** Takes name and reason of a skipped test apart. */
export function skipReason(name: string): { name: string; reason: string } {
  const at = name.indexOf(MARK);
  return at < 0
    ? { name, reason: "it does not say why" }
    : { name: name.slice(0, at), reason: name.slice(at + MARK.length, -1) };
}
