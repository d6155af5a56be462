/** Where the router is: as the command line or the environment says, else where the last one of this host was told to listen. */
import { ApiClient } from "../api/client.ts";
import { HTTP_ADDR } from "../config/options.ts";
import { type Given, readOption } from "../config/option.ts";
import { lastRecord } from "../daemon/process.ts";
import { OperationError } from "../lib/errors.ts";

export async function routerClient(given: Given): Promise<ApiClient> {
  const source = given.has(HTTP_ADDR.flag) ? given : (await lastRecord())?.given ?? given;
  const address = readOption(HTTP_ADDR, source);
  if (address === undefined) {
    throw new OperationError("The router has no control API: it was launched with an empty --http-addr");
  }
  return new ApiClient(address);
}
