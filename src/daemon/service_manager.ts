/** What a service manager that started us is told, if one did (sd_notify(3)). */
import { notifyServiceManager } from "../../ffi/notify_socket.ts";

/** Never fails: a service manager that does not listen is no reason to stop. */
export function tellServiceManager(words: "READY=1" | "STOPPING=1" | "WATCHDOG=1"): void {
  const path = Deno.env.get("NOTIFY_SOCKET");
  if (path === undefined || path === "") return;
  try {
    notifyServiceManager(path, words);
  } catch (error) {
    console.error(`Cannot tell the service manager ${words}: ${(error as Error).message}`);
  }
}

/** Says that we live, twice as often as was asked for (sd_watchdog_enabled(3)); undefined where nobody asked. */
export function startWatchdog(): Disposable | undefined {
  const pid = Deno.env.get("WATCHDOG_PID");
  const periodMs = Number(Deno.env.get("WATCHDOG_USEC") ?? NaN) / 1000;
  if (!(periodMs > 0) || pid !== undefined && Number(pid) !== Deno.pid) return undefined;
  // By the main thread's timer: where that is stuck, nothing is said.
  const timer = setInterval(() => tellServiceManager("WATCHDOG=1"), periodMs / 2);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
