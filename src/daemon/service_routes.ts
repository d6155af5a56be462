/** Endpoints of services and networks. What changes something is for root. */
import type { ApiAnswer, ApiRequest, Route } from "../api/types.ts";
import { parseNetwork } from "../config/service_options.ts";
import { OperationError, OptionError } from "../lib/errors.ts";
import { writeJson } from "../lib/json.ts";
import { DesiredError } from "../service/apply.ts";
import { addressesJson, formatAddresses, ServiceOperations } from "./service_operations.ts";
import { blockersOf } from "./service_blockers.ts";
import { networksJson, serviceJson } from "./service_view.ts";
import type { Services } from "./services.ts";

const JSON_TYPE = "application/json";
/** What a client may name: a service, or a container by its name in DNS. */
const MAX_NAME = 255;

export function serviceRoutes(services: Services): readonly Route[] {
  const operations = new ServiceOperations(services);
  const root = true;
  return [
    { method: "GET", path: "/service", handle: () => listServices(services) },
    { method: "GET", path: "/service/{name}", handle: ({ segments }) => showService(services, segments["name"]!) },
    changing("POST", "/service/{name}/import", async ({ segments, parameters, wantsJson }) => {
      const imported = await operations.import({
        name: segments["name"]!,
        to: parameters.getAll("to"),
        network: one(parameters, "network"),
        port: several(parameters, "port"),
        priority: one(parameters, "priority"),
        weight: one(parameters, "weight"),
        check: one(parameters, "check"),
        subnets: several(parameters, "subnet"),
        allowLocal: isSet(parameters, "allow-local"),
      });
      return wantsJson ? json({ addresses: addressesJson(imported) }) : text(formatAddresses(imported));
    }),
    changing("POST", "/service/{name}/export", async ({ segments, parameters, wantsJson }) => {
      const exported = await operations.export({
        name: segments["name"]!,
        listen: parameters.get("listen") ?? "",
        network: one(parameters, "network"),
        allow: several(parameters, "allow"),
        dns: isSet(parameters, "dns"),
        force: isSet(parameters, "force"),
      });
      return wantsJson ? json(exported) : text(exported.at);
    }),
    changing("POST", "/service/{name}/bind", async ({ segments, parameters, wantsJson }) => {
      const to = parameters.getAll("to");
      const imported = await operations.bind(segments["name"]!, to, isSet(parameters, "allow-local"));
      return wantsJson ? json({ addresses: addressesJson(imported) }) : text(formatAddresses(imported));
    }),
    changing("POST", "/service/{name}/revoke", async ({ segments, wantsJson }) => {
      const flows = await operations.revoke(segments["name"]!);
      return wantsJson ? json({ flows }) : text(`${connections(flows)} reset`);
    }),
    changing("POST", "/service/{name}/drain", async ({ segments, wantsJson }) => {
      const flows = await operations.drain(segments["name"]!);
      return wantsJson ? json({ flows }) : text(`${connections(flows)} left`);
    }),
    changing("DELETE", "/service/{name}", async ({ segments, parameters, wantsJson }) => {
      const listen = one(parameters, "listen");
      await operations.remove(segments["name"]!, { exportsAlone: isSet(parameters, "export"), listen });
      return wantsJson ? json({}) : { status: 204 };
    }),
    { method: "GET", path: "/service-config", handle: () => answered(() => json(operations.config())) },
    {
      method: "POST",
      path: "/service-config",
      root,
      large: true,
      handle: (request) => applyConfig(operations, request),
    },
    { method: "GET", path: "/network", handle: () => json(networksJson(services)) },
    changing("POST", "/network/{name}", async ({ segments, parameters, wantsJson }) => {
      const suffix = isSet(parameters, "isolated") ? ":isolated" : "";
      const given = `${segments["name"]}=${parameters.getAll("interface").join(",")}${suffix}`;
      const network = parseNetwork(given);
      if (typeof network === "string") throw new OptionError(`Cannot use "${given}" as network: ${network}`);
      await operations.setNetwork(network, isSet(parameters, "force"));
      return wantsJson ? json({}) : { status: 204 };
    }),
    changing("DELETE", "/network/{name}", async ({ segments, wantsJson }) => {
      await operations.removeNetwork(segments["name"]!);
      return wantsJson ? json({}) : { status: 204 };
    }),
  ];

  function changing(
    method: "POST" | "DELETE",
    path: string,
    handle: (request: ApiRequest) => Promise<ApiAnswer>,
  ): Route {
    return { method, path, root, handle: (request) => answered(() => handle(request)) };
  }
}

/** 400 for what makes no sense, 409 for what cannot be done now, both in words for the user. */
async function answered(work: () => ApiAnswer | Promise<ApiAnswer>): Promise<ApiAnswer> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof DesiredError) return { ...json({ message: error.message, path: error.path }), status: 400 };
    if (error instanceof OptionError) return { status: 400, body: `${error.message}\n` };
    if (error instanceof OperationError) return { status: 409, body: `${error.message}\n` };
    throw error;
  }
}

/** Always JSON: `{ text, changes }`, or what is wrong and where. */
function applyConfig(operations: ServiceOperations, { parameters }: ApiRequest): Promise<ApiAnswer> {
  const options = { dryRun: isSet(parameters, "dry-run"), force: isSet(parameters, "force") };
  return answered(async () => json(await operations.apply(readValue(parameters.get("config") ?? ""), options)));
}

function listServices(services: Services): ApiAnswer {
  return json(services.catalogue.names().map((name) => serviceJson(services, name)).filter((one) => one !== undefined));
}

async function showService(services: Services, name: string): Promise<ApiAnswer> {
  const known = name.length > MAX_NAME ? undefined : serviceJson(services, name.toLowerCase().replace(/\.$/, ""));
  if (known === undefined) return { status: 404, body: `There is no service ${name.slice(0, MAX_NAME)}\n` };
  try {
    await services.flows.countNow();
  } catch {
    // What was counted last will do.
  }
  const blockers = await blockersOf(services, known.name);
  const shown = serviceJson(services, known.name) ?? known;
  return json({ ...shown, warnings: [...shown.warnings, ...blockers] });
}

function connections(flows: number): string {
  return `${flows} ${flows === 1 ? "connection" : "connections"}`;
}

function readValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new OptionError("Cannot understand the configuration: JSON expected");
  }
}

function one(parameters: URLSearchParams, name: string): string | undefined {
  return parameters.get(name) ?? undefined;
}

function several(parameters: URLSearchParams, name: string): readonly string[] | undefined {
  const all = parameters.getAll(name);
  return all.length === 0 ? undefined : all;
}

function isSet(parameters: URLSearchParams, name: string): boolean {
  return parameters.get(name) === "true";
}

function text(body: string): ApiAnswer {
  return { status: 200, body: `${body}\n` };
}

function json(value: unknown): ApiAnswer {
  return { status: 200, body: `${writeJson(value)}\n`, contentType: JSON_TYPE };
}
