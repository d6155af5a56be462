/**
 * Entry of the packet thread's worker. One message starts it; from then on it blocks in epoll_wait, and no message reaches it until it
 * ends.
 */
import type { FromThread, StartMessage } from "./packet_messages.ts";
import { PacketLoop } from "./packet_loop.ts";

/** What a worker's global scope has; the checker's own declaration of it would replace everybody else's. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<StartMessage>) => void) | null;
  postMessage(message: FromThread): void;
  close(): void;
}

const scope = globalThis as unknown as WorkerScope;
const tell = (message: FromThread) => scope.postMessage(message);

scope.onmessage = async (event) => {
  try {
    const loop = await PacketLoop.open(event.data, () => tell({ type: "events" }));
    tell({ type: "started", secretBox: loop.secretBox });
    loop.run();
    tell({ type: "stopped" });
  } catch (error) {
    tell({ type: "crashed", message: error instanceof Error ? error.stack ?? error.message : String(error) });
  }
  scope.close();
};
