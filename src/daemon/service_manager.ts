/** What a service manager that started us is told, if one did (sd_notify(3)). */
import { notifyServiceManager } from "../../ffi/notify_socket.ts";

/** Never fails: a service manager that does not listen is no reason to stop. */
export function tellServiceManager(words: "READY=1" | "STOPPING=1"): void {
  const path = Deno.env.get("NOTIFY_SOCKET");
  if (path === undefined || path === "") return;
  try {
    notifyServiceManager(path, words);
  } catch (error) {
    console.error(`Cannot tell the service manager ${words}: ${(error as Error).message}`);
  }
}
