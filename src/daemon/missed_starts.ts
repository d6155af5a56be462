/**
 * Containers that Docker was to start when it came up itself, and could not, as nobody served its networks yet: it does not try again,
 * whatever their restart policy says. So we do, once we serve; a router that is a container comes up after Docker always.
 */
import { askEngine, askEngineFor, messageOf } from "../host/docker_api.ts";
import type { Logger } from "../lib/log.ts";

/** What Docker remembers of such a start. */
const FOR_WANT_OF_US = /plugin "weave(mesh)?" not found|\/plugins\/weave(mesh)?\.sock/;
/** They are started with Docker. */
const POLICIES = ["always", "unless-stopped"];
const EXITED = `/containers/json?all=1&filters=${encodeURIComponent(JSON.stringify({ status: ["exited"] }))}`;
const START_MS = 60_000;
/** Of all that have ended: looking at each takes a while. */
const MAX_LOOKED_AT = 1000;

/** Never rejects: who cannot be started is logged. */
export async function startMissed(log: Logger): Promise<void> {
  try {
    const list = await askEngineFor(EXITED);
    const ids = Array.isArray(list) ? list.map((container) => String((container as { Id?: unknown } | null)?.Id)) : [];
    for (const id of ids.slice(0, MAX_LOOKED_AT)) if (await wasMissed(id)) await start(id, log);
  } catch (error) {
    log.debug("containers that were not started cannot be looked for", { error: (error as Error).message });
  }
}

async function wasMissed(id: string): Promise<boolean> {
  const { State, HostConfig } = (await askEngineFor(`/containers/${id}/json`) ?? {}) as {
    readonly State?: { readonly Status?: unknown; readonly Error?: unknown };
    readonly HostConfig?: { readonly RestartPolicy?: { readonly Name?: unknown } };
  };
  return State?.Status === "exited" && POLICIES.includes(String(HostConfig?.RestartPolicy?.Name)) &&
    FOR_WANT_OF_US.test(String(State.Error));
}

async function start(id: string, log: Logger): Promise<void> {
  const { status, json } = await askEngine({ method: "POST", path: `/containers/${id}/start`, limitMs: START_MS });
  if (status < 400) log.info("started a container that Docker could not start without us", { container: id });
  else {log.warn("a container that Docker could not start cannot be started", {
      container: id,
      reason: messageOf(json),
    });}
}
