// The console's entry: htmx settings, the behaviours that any page may use, and the live socket.
// Pages with graphs, charts or logs add the module of that behaviour themselves.

import { register, start as startBehaviors } from "./registry.js";
import { start as startLive } from "./live.js";
import { toast } from "./toast.js";
import * as ago from "./behaviors/ago.js";
import * as confirmation from "./behaviors/confirm.js";
import * as copy from "./behaviors/copy.js";
import * as drawer from "./behaviors/drawer.js";
import * as menu from "./behaviors/menu.js";
import * as notice from "./behaviors/toast.js";
import * as palette from "./behaviors/palette.js";
import * as rows from "./behaviors/rows.js";
import * as telemetry from "./behaviors/telemetry.js";
import * as theme from "./behaviors/theme.js";

// A live refresh must not undo what the person has just opened, typed or is looking at.
Object.assign(Idiomorph.defaults.callbacks, {
  beforeNodeMorphed: (old) => !(old instanceof Element && old.hasAttribute("data-morph-keep")),
  beforeAttributeUpdated: (name, node) => !(name === "open" && node instanceof HTMLDetailsElement),
});

// Filters left empty do not belong into the address.
document.addEventListener("htmx:configRequest", ({ detail }) => {
  if (detail.verb !== "get") return;
  for (const [name, value] of [...detail.formData.entries()]) if (value === "") detail.formData.delete(name);
});
document.addEventListener("htmx:responseError", ({ detail }) => {
  const problem = detail.xhr.getResponseHeader("X-Problem");
  toast(problem ? decodeURIComponent(problem) : `The portal answered ${detail.xhr.status}. Try again.`, "failed");
});
document.addEventListener("htmx:sendError", ({ target }) => {
  if (!target.hasAttribute("data-live-topics")) toast("The portal cannot be reached. Try again.", "failed");
});
document.addEventListener("submit", ({ target }) => {
  if (!target.matches("[hx-get], [hx-post]")) document.documentElement.classList.add("is-loading");
});
addEventListener("pageshow", () => document.documentElement.classList.remove("is-loading"));

for (const [name, behavior] of Object.entries({ ago, confirm: confirmation, copy, drawer, menu, palette, rows, telemetry, theme, toast: notice })) {
  register(name, behavior);
}
startBehaviors();
startLive();
