/** The version of this program; written in deno.json and nowhere else. */
import config from "../../deno.json" with { type: "json" };

export const VERSION: string = config.version;
