/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
/**
 * Entry of the packet thread's worker. One message starts it; from then on it blocks in epoll_wait, and no message reaches it until it
 * ends.
 */
import type { FromThread, StartMessage } from "./packet_messages.ts";
import { PacketLoop } from "./packet_loop.ts";

const tell = (message: FromThread) => self.postMessage(message);

self.onmessage = async (event: MessageEvent<StartMessage>) => {
  try {
    const loop = await PacketLoop.open(event.data, () => tell({ type: "events" }));
    tell({ type: "started", secretBox: loop.secretBox });
    loop.run();
    tell({ type: "stopped" });
  } catch (error) {
    tell({ type: "crashed", message: error instanceof Error ? error.stack ?? error.message : String(error) });
  }
  self.close();
};
